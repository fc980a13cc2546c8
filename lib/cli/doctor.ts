/** `tunesmith doctor`: what is here, what is missing, why, and what to do about it. */
import { availableParallelism, cpus, freemem, release, totalmem } from 'node:os'
import type { BackendStatus } from '../native/addon.ts'
import { addon } from '../native/load.ts'
import { type Command, exitCode, readArguments, type Streams } from './command.ts'
import { bytes, plural, table } from './format.ts'
import { version } from './version.ts'

const help = `usage: tunesmith doctor [--json]

Prints versions, the processor, memory and every backend: what it runs on, or why it is missing and what to do.
Exit code 1 where nothing can train.
`

interface Diagnosis {
  tunesmith: string
  node: string
  system: string
  glibc: string | null
  processor: string
  cores: number
  memoryBytes: number
  freeMemoryBytes: number
  backends: (BackendStatus & { advice?: string })[]
  /** Why the addon does not load. */
  problem?: string
}

async function run(args: string[], { stdout }: Streams): Promise<number> {
  const { values } = readArguments(args, { json: { type: 'boolean', default: false } })
  const found = diagnose()
  stdout.write(values.json ? `${JSON.stringify(found)}\n` : `${diagnosisTable(found)}\n`)
  return found.backends.some((backend) => backend.available) ? exitCode.ok : exitCode.failed
}

function diagnose(): Diagnosis {
  const report = process.report?.getReport() as { header?: { glibcVersionRuntime?: string } } | undefined
  const machine = {
    tunesmith: version(),
    node: process.version,
    system: `${process.platform}-${process.arch} ${release()}`,
    glibc: report?.header?.glibcVersionRuntime ?? null,
    processor: cpus()[0]?.model ?? 'unknown',
    cores: availableParallelism(),
    // A container's limit, where there is one; without one Node reports 0 or a number beyond any memory.
    memoryBytes: Math.min(totalmem(), process.constrainedMemory() || Number.POSITIVE_INFINITY),
    freeMemoryBytes: freemem(),
  }
  try {
    const backends = addon().backends()
    return { ...machine, backends: backends.map((b) => (b.available ? b : { ...b, advice: advice(b) })) }
  } catch (error) {
    return { ...machine, backends: [], problem: (error as Error).message }
  }
}

/** What to do about a backend that is missing. */
export function advice({ name, reason = '' }: BackendStatus): string {
  if (name === 'cuda' && /not installed/.test(reason))
    return 'build it where nvcc is: npm run setup in the package folder; until then runs use the CPU'
  if (name === 'cuda' && /cuBLAS/.test(reason)) return 'pip install nvidia-cublas==13.1.1.3'
  if (name === 'cuda') return 'for an NVIDIA GPU, install its driver (580 or newer); without one, runs use the CPU'
  if (name === 'cpu' && /libdnnl|libOpenCL|libgomp|libhwy/.test(reason))
    return 'install the missing library (Debian: apt install libdnnl2 libgomp1), then try again'
  if (name === 'cpu' && /not installed/.test(reason)) return 'build it: npm run setup in the package folder'
  return 'rebuild: npm run setup in the package folder; if that does not help, report the reason above'
}

/** The diagnosis as aligned lines under headings. */
export function diagnosisTable(found: Diagnosis): string {
  return table([
    ['Versions'],
    ['tunesmith', found.tunesmith],
    ['Node', found.node],
    ['system', `${found.system}${found.glibc ? `, glibc ${found.glibc}` : ''}`],
    ['Machine'],
    ['processor', found.processor],
    ['cores', String(found.cores)],
    ['memory', `${bytes(found.memoryBytes)}, ${bytes(found.freeMemoryBytes)} free`],
    ['Backends'],
    ...(found.problem === undefined
      ? []
      : [['problem', found.problem.replaceAll('\n', `\n${' '.repeat(13)}`)] as const]),
    ...found.backends.flatMap(backendRows),
  ])
}

function backendRows(backend: BackendStatus & { advice?: string }): (readonly [string, string])[] {
  if (!backend.available)
    return [
      // Some reasons list places that were searched, one a line.
      [backend.name, `missing: ${(backend.reason ?? 'no reason given').replaceAll('\n', `\n${' '.repeat(15)}`)}`],
      ['', `→ ${backend.advice}`],
    ]
  const parts = [backend.isa, backend.library !== 'none' && backend.library, plural(backend.threads ?? 1, 'thread')]
  if (backend.fastBfloat16 !== undefined) parts.push(backend.fastBfloat16 ? 'fast bfloat16' : 'no fast bfloat16')
  return [[backend.name, parts.filter(Boolean).join(', ')]]
}

export const doctor: Command = { summary: 'check this machine: backends, versions, and what is missing', help, run }
