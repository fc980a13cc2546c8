/**
 * Our side of bench/train-step, commanded over stdin and stdout like torch_step.py, whose protocol it shares.
 *
 *     node --import tsx worker.ts --model FOLDER --threads 2 --tokens 1024 --supervised 1024 --sequences 4 [--profile]
 */
import { readFileSync } from 'node:fs'
import { createInterface } from 'node:readline'
import { parseArgs } from 'node:util'
import { collate } from '../../lib/batch/collate.ts'
import { loadParameters } from '../../lib/checkpoint/load.ts'
import { openCheckpoint } from '../../lib/checkpoint/open.ts'
import type { MicroBatch } from '../../lib/native/addon.ts'
import { addon } from '../../lib/native/load.ts'
import { type Batch, optimizerStep, weightSum } from './step.ts'

const { values } = parseArgs({
  options: {
    model: { type: 'string' },
    threads: { type: 'string', default: '2' },
    tokens: { type: 'string' },
    supervised: { type: 'string' },
    sequences: { type: 'string' },
    precision: { type: 'string', default: 'bfloat16' },
    profile: { type: 'boolean', default: false },
  },
})

const checkpoint = await openCheckpoint(values.model!)
const engine = new (addon().Engine)({
  backend: 'cpu',
  compute: values.precision as 'bfloat16' | 'float32',
  threads: Number(values.threads),
  spec: checkpoint.spec,
  training: true,
  optimizer: 'adamw',
  recompute: false,
  maxTokens: Number(values.tokens),
  maxSupervised: Number(values.supervised),
  maxSequences: Number(values.sequences),
  cacheTokens: 0,
  profile: values.profile,
})
await loadParameters(checkpoint, engine)
const parameters = engine.parameters().reduce((sum, { shape }) => sum + shape.reduce((a, b) => a * b, 1), 0)
answer({ ready: true, parameters, version: addon().version })

let batch: MicroBatch | undefined
let applied = 0
for await (const line of createInterface({ input: process.stdin })) answer(await obey(JSON.parse(line)))
engine.close()

type Command =
  | ({ do: 'batch' } & Batch)
  | { do: 'step'; count: number }
  | { do: 'check' }
  | { do: 'memory' }
  | { do: 'profile' }

async function obey(command: Command): Promise<object> {
  switch (command.do) {
    case 'batch': {
      const source = { file: 'bench', line: 1 }
      const examples = command.tokens.map((ids, index) => {
        return { ids: Int32Array.from(ids), weights: Float32Array.from(command.weights[index]!), source }
      })
      batch = collate(examples)
      return { rows: weightSum(batch) }
    }
    case 'check': {
      const loss = await accumulate()
      // A step of rate 0 without decay, for the norm it reports: parameters stay, only the moments take it in.
      const { gradNorm } = await engine.optimizerStep({ ...optimizerStep, learningRate: 0, weightDecay: 0, step: 1 })
      return { loss, gradNorm }
    }
    case 'step': {
      const seconds: number[] = []
      let loss = Number.NaN
      for (let i = 0; i < command.count; i++) {
        const begin = performance.now()
        loss = await accumulate()
        await engine.optimizerStep({ ...optimizerStep, step: ++applied })
        seconds.push((performance.now() - begin) / 1000)
      }
      return { seconds, loss }
    }
    case 'memory': {
      const kilobytes = /^VmHWM:\s+(\d+) kB/m.exec(readFileSync('/proc/self/status', 'utf8'))![1]!
      return { peak: Number(kilobytes) * 1024, plan: engine.plan }
    }
    case 'profile':
      return { ops: await engine.profile() }
  }
}

async function accumulate(): Promise<number> {
  const sum = weightSum(batch!)
  const { loss } = await engine.accumulate(batch!, sum, true)
  return loss / sum
}

function answer(value: object): void {
  process.stdout.write(`${JSON.stringify(value)}\n`)
}
