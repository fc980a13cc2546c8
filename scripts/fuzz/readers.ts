/**
 * Fuzzes the readers of data files: damaged, truncated and hostile files of every container and layout. Whatever comes,
 * there must be rows or one clear error, every row counted, no crash and no hang.
 *
 *     npx tsx scripts/fuzz/readers.ts [INPUTS = 10000] [SEED = 1]
 *
 * An input on which something goes wrong is kept and named; the exit status is then 1.
 */
import { fork } from 'node:child_process'
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { Random } from '../random.ts'
import { checkReader } from './check-reader.ts'
import { type Input, nextInput } from './reader-inputs.ts'

/** Processor time that a hundred inputs never take, nor one of them in any time; where they do, the readers hang. */
const LONGEST = { busy: 60, waiting: 1800 }
const GOLDEN = fileURLToPath(new URL('../../test/golden/data/', import.meta.url))

interface Task {
  inputs: number
  seed: number
  folder: string
}
type Message = { done: number; read: number; refused: number } | { failure: string; number: number }

const [inputs = 10_000, seed = 1] = process.argv.slice(2, 4).map(Number)
const [, , , , folder] = process.argv
if (folder === undefined) {
  watch({ inputs, seed, folder: mkdtempSync(join(existsSync('/dev/shm') ? '/dev/shm' : tmpdir(), 'tunesmith-fuzz-')) })
} else {
  await work({ inputs, seed, folder })
  process.disconnect()
}

/** Looks on from outside, because a process that hangs or crashes cannot tell. */
function watch(task: Task): void {
  const worker = fork(fileURLToPath(import.meta.url), [`${task.inputs}`, `${task.seed}`, task.folder])
  const started = performance.now()
  let alive = started
  let busy = 0
  const end = (status: number, text: string) => {
    console.log(text)
    worker.kill('SIGKILL')
    rmSync(task.folder, { recursive: true, force: true })
    process.exit(status)
  }
  const timer = setInterval(() => {
    const waited = (performance.now() - alive) / 1000
    if (waited > LONGEST.waiting || processorSeconds(worker.pid!) - busy > LONGEST.busy)
      end(1, `Hangs: ${keep(task.folder)}`)
  }, 500)
  worker.on('message', (message: Message) => {
    alive = performance.now()
    busy = processorSeconds(worker.pid!)
    if ('failure' in message) return end(1, `Input ${message.number}: ${message.failure}\nKept: ${keep(task.folder)}`)
    const { done, read, refused } = message
    const seconds = ((alive - started) / 1000).toFixed(1)
    const line = `${done} inputs in ${seconds} s: ${read} read, ${refused} refused`
    if (done === task.inputs) end(0, `${line}, nothing wrong`)
    else if (done % 10_000 === 0) console.log(line)
  })
  worker.on('exit', (code, signal) => {
    clearInterval(timer)
    if (code !== 0) end(1, `Crashed with ${code ?? signal}. Kept: ${keep(task.folder)}`)
  })
}

/** Of all threads of a process so far; 0 where the system does not tell. */
function processorSeconds(pid: number): number {
  try {
    const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1]!.split(' ')
    return (Number(fields[11]) + Number(fields[12])) / 100
  } catch {
    return 0
  }
}

/** Copies the last input out of the folder that goes. */
function keep(folder: string): string {
  const names = readdirSync(folder)
  return names
    .map((name) => {
      const copy = join(tmpdir(), `tunesmith-fuzz-failure-${name}`)
      writeFileSync(copy, readFileSync(join(folder, name)))
      return copy
    })
    .join(', ')
}

async function work({ inputs, seed, folder }: Task): Promise<void> {
  const seeds = readdirSync(GOLDEN)
    .filter((name) => /\.(parquet|zst)$/.test(name))
    .map((name) => ({ name, content: readFileSync(join(GOLDEN, name)) }))
  const random = new Random(seed)
  const counts = { read: 0, refused: 0 }
  for (let number = 1; number <= inputs; number++) {
    const input: Input = nextInput(random, seeds)
    try {
      counts[await checkReader(input, folder)]++
    } catch (error) {
      process.send!({ failure: (error as Error).stack ?? String(error), number } satisfies Message)
      return
    }
    rmSync(join(folder, input.name))
    if (number % 100 === 0 || number === inputs) process.send!({ done: number, ...counts } satisfies Message)
  }
}
