/** Planned against measured peak memory of full fine-tuning, LoRA and QLoRA. See README.md. */
import { execFile } from 'node:child_process'
import { readFileSync, writeFileSync } from 'node:fs'
import { cpus, totalmem } from 'node:os'
import { fileURLToPath } from 'node:url'
import { parseArgs, promisify } from 'node:util'
import type { MemoryPlan } from '../../lib/native/addon.ts'
import { addon } from '../../lib/native/load.ts'
import { engineOptions, type Method, methods, type Precision, type Run, type Shape, shapes } from './shapes.ts'

const { values } = parseArgs({
  options: {
    shapes: { type: 'string', default: shapes.join(',') },
    methods: { type: 'string', default: methods.join(',') },
    precisions: { type: 'string', default: 'bfloat16,float32' },
    sequences: { type: 'string', default: '4' },
    length: { type: 'string', default: '128' },
    threads: { type: 'string', default: '2' },
    out: { type: 'string' },
  },
})

interface Result extends Run {
  plan: MemoryPlan
  /** Bytes; absent where the machine has not so much memory. */
  measured?: number
  unplanned?: number
}

const machine = { cpu: cpus()[0]!.model, cores: cpus().length, memory: totalmem(), node: process.version }
const gib = (bytes: number) => (bytes / 2 ** 30).toFixed(2)
const results: Result[] = []
console.log('| model | method | precision | planned GiB | measured GiB | measured / planned |')
console.log('| --- | --- | --- | --- | --- | --- |')
for (const shape of values.shapes.split(',') as Shape[])
  for (const method of values.methods.split(',') as Method[])
    for (const precision of values.precisions.split(',') as Precision[]) {
      const { sequences, length, threads } = values
      const run = { shape, method, precision, sequences: +sequences, length: +length, threads: +threads }
      const result = await measure(run)
      results.push(result)
      const { plan, measured } = result
      const found =
        measured === undefined
          ? `more than this machine has free (${gib(available())} GiB) | not measured`
          : `${gib(measured)} | ${(measured / plan.total).toFixed(3)}`
      console.log(`| ${shape} | ${method} | ${precision} | ${gib(plan.total)} | ${found} |`)
      // After every run: the larger ones take long.
      if (values.out)
        writeFileSync(values.out, `${JSON.stringify({ machine, version: addon().version, results }, null, 1)}\n`)
    }

async function measure(run: Run): Promise<Result> {
  const plan = addon().plan(engineOptions(run))
  if (plan.total * 1.05 > available()) return { ...run, plan }
  const worker = fileURLToPath(new URL('worker.ts', import.meta.url))
  const { stdout } = await promisify(execFile)('node', ['--import', 'tsx', worker, JSON.stringify(run)])
  const { measured, unplanned } = JSON.parse(stdout) as { measured: number; unplanned: number }
  return { ...run, plan, measured, unplanned }
}

function available(): number {
  return 1024 * Number(/^MemAvailable:\s+(\d+) kB/m.exec(readFileSync('/proc/meminfo', 'utf8'))![1]!)
}
