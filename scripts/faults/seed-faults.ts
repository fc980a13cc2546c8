/**
 * The test of the tests: puts one fault after another into a copy of the native sources, and expects the native tests to
 * fail each time.
 *
 *     npx tsx scripts/faults/seed-faults.ts [--work runs/faults] [--only PATTERN]
 *
 * Takes about a minute per fault. Exits with 1 where a fault goes unnoticed. Faults of CUDA kernels need nvcc and cuBLAS
 * (scripts/setup.sh) to be configured, though nothing is compiled with them: the tests run on `cuda-host`.
 */
import { spawnSync } from 'node:child_process'
import { cpSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { parseArgs } from 'node:util'
import { faults as cpu } from './cpu.ts'
import { faults as cuda } from './cuda.ts'

export interface Fault {
  /** Path from the root. */
  file: string
  /** What is wrong then, in words. */
  what: string
  /** Occurs exactly once in the file. */
  from: string
  to: string
}

const { values } = parseArgs({
  options: { work: { type: 'string', default: 'runs/faults' }, only: { type: 'string', default: '' } },
})
const work = resolve(values.work)
const build = join(work, 'build')

function run(command: string, args: string[], env: NodeJS.ProcessEnv = {}) {
  // A fault may well loop for ever.
  const options = { encoding: 'utf8', timeout: 900_000, maxBuffer: 1 << 28, env: { ...process.env, ...env } } as const
  const { status, stdout, stderr, error } = spawnSync(command, args, options)
  return { passed: status === 0, output: `${stdout}${stderr}${error ?? ''}` }
}

function must(command: string, args: string[]): void {
  const { passed, output } = run(command, args)
  if (!passed) throw new Error(`${command} ${args.join(' ')} failed:\n${output.slice(-3000)}`)
}

/** Only the best instruction set of this machine: the code is the same for all, and compiling takes a third of the time. */
const flags = '-march=native -DHWY_COMPILE_ONLY_STATIC'
const chosen = [...cpu, ...cuda].filter(({ file, what }) => new RegExp(values.only).test(`${file}: ${what}`))
const isCuda = ({ file }: Fault) => file.startsWith('cuda/')
const compile = (onCuda: boolean) =>
  run('ninja', ['-C', build, onCuda ? 'tunesmith_cuda_host' : 'tunesmith_cpu', 'tunesmith_test'])
const test = (onCuda: boolean) =>
  run(join(build, 'tunesmith_test'), ['--abort-after=1'], {
    TUNESMITH_BACKEND_DIR: join(build, 'product'),
    TUNESMITH_TEST_BACKENDS: onCuda ? 'reference,cuda-host' : 'reference,cpu',
  })

rmSync(work, { recursive: true, force: true })
mkdirSync(work, { recursive: true })
for (const part of ['CMakeLists.txt', 'package.json', 'native', 'cuda', 'bench/ops'])
  cpSync(part, join(work, part), { recursive: true })
// A fault may leave a variable unused.
const lists = join(work, 'CMakeLists.txt')
writeFileSync(lists, readFileSync(lists, 'utf8').replaceAll(' -Werror', ''))
const settings = [`-DTUNESMITH_PRODUCT_DIR=${join(build, 'product')}`, `-DCMAKE_CXX_FLAGS=${flags}`]
const cublas = process.env.TUNESMITH_CMAKE_TUNESMITH_CUBLAS_DIR ?? resolve('build/cublas/nvidia/cu13')
if (chosen.some(isCuda)) settings.push('-DTUNESMITH_CUDA=ON', `-DTUNESMITH_CUBLAS_DIR=${cublas}`)
must('cmake', ['-S', work, '-B', build, '-G', 'Ninja', '-DCMAKE_BUILD_TYPE=Release', ...settings])
for (const onCuda of new Set(chosen.map(isCuda))) {
  const clean = compile(onCuda)
  if (!clean.passed) throw new Error(`The sources do not compile:\n${clean.output.slice(-3000)}`)
  const before = test(onCuda)
  if (!before.passed) throw new Error(`The tests fail without any fault:\n${before.output.slice(-3000)}`)
}

const unnoticed: Fault[] = []
for (const fault of chosen) {
  const path = join(work, fault.file)
  const source = readFileSync(path, 'utf8')
  const pieces = source.split(fault.from)
  if (pieces.length !== 2) throw new Error(`${fault.file}: found ${pieces.length - 1} times, not once: ${fault.from}`)
  writeFileSync(path, pieces.join(fault.to))
  const compiled = compile(isCuda(fault))
  if (!compiled.passed)
    throw new Error(`${fault.file}: ${fault.what}: does not compile\n${compiled.output.slice(-3000)}`)
  const { passed, output } = test(isCuda(fault))
  const first = output.match(/TEST CASE:\s*(.*)/)?.[1] ?? output.trim().split('\n').at(-1)
  console.log(`${passed ? 'UNNOTICED' : 'caught   '}  ${fault.file}: ${fault.what}${passed ? '' : `  [${first}]`}`)
  if (passed) unnoticed.push(fault)
  writeFileSync(path, source)
}
console.log(`${chosen.length - unnoticed.length} of ${chosen.length} faults caught`)
process.exitCode = unnoticed.length > 0 ? 1 : 0
