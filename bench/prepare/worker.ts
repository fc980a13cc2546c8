/** Our side of bench/prepare: prepares the file as training does, cold or from the cache, or only encodes its texts. */
import { rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { monitorEventLoopDelay } from 'node:perf_hooks'
import { createInterface } from 'node:readline'
import { setTimeout } from 'node:timers/promises'
import { parseArgs } from 'node:util'
import { Tokenizer as NativeTokenizer } from 'tokenizers'
import { epochDraw } from '../../lib/batch/mixture.ts'
import { addPacking, noPacking } from '../../lib/batch/packing.ts'
import { prepare } from '../../lib/batch/prepare.ts'
import type { Prepared, PrepareOptions } from '../../lib/batch/prepared.ts'
import { RowTexts } from '../../lib/batch/row-texts.ts'
import { planPacking, planSteps } from '../../lib/batch/steps.ts'
import { Tally } from '../../lib/batch/tally.ts'
import { Tokenizer } from '../../lib/chat/tokenizer.ts'
import { isTokenRow } from '../../lib/data/conversation.ts'
import { readRows } from '../../lib/data/read.ts'
import { parseOptions } from '../../lib/trainer/options.ts'

const { values } = parseArgs({
  options: {
    data: { type: 'string' },
    tokenizer: { type: 'string' },
    template: { type: 'string' },
    cache: { type: 'string' },
  },
})
const {
  data,
  tokenizer: folder,
  template,
  cache,
} = values as Record<'data' | 'tokenizer' | 'template' | 'cache', string>
const resolved = parseOptions({
  model: folder,
  output: cache,
  data: { train: data },
  chatTemplate: template,
  // As Transformers does; rows that spell a control token would be refused otherwise.
  controlTokensInText: 'keep',
  cache,
})
const options: PrepareOptions = { ...resolved, maxLength: 1 << 20 }
const tokenizer = await Tokenizer.load(folder)
const native = NativeTokenizer.fromFile(join(folder, 'tokenizer.json'))
native.disableTruncation()
native.disablePadding()
const texts = await renderAll()

/** The texts that are tokenised, for the bare encodeBatch. */
async function renderAll(): Promise<string[]> {
  const rowTexts = new RowTexts(options, tokenizer, new Tally(options))
  const rendered: string[] = []
  await rowTexts.chooseTemplate()
  for await (const rows of readRows(options.data.train, new Tally(options).report))
    for (const row of rows) if (!isTokenRow(row)) for (const { text } of rowTexts.of(row)) rendered.push(text)
  return rendered
}

/** Packs the first epoch, as the plan of a run does. */
function pack({ train }: Prepared): number {
  const order = epochDraw(train, { seed: resolved.seed, epoch: 0, shuffle: true })
  let packing = noPacking
  for (const step of planSteps(train, order, resolved.batch))
    packing = addPacking(packing, planPacking(train, step, resolved.microBatchTokens))
  return packing.microBatches
}

/** Everything that comes between the file and the first step. `blocked` is the longest the event loop had to wait. */
async function whole(given: PrepareOptions) {
  const delay = monitorEventLoopDelay({ resolution: 10 })
  delay.enable()
  const began = performance.now()
  const prepared = await prepare(given, tokenizer)
  const microBatches = pack(prepared)
  const seconds = (performance.now() - began) / 1000
  delay.disable()
  const { tokens, supervisedTokens, examples } = prepared.train
  return {
    prepared,
    answer: { seconds, rows: examples.length, tokens, supervisedTokens, microBatches, blocked: delay.max / 1e9 },
  }
}

/** Row by row: number of tokens, ids, and one byte per token that tells whether it carries loss. */
function write(path: string, { train }: Prepared): void {
  const { examples } = train
  const parts: Uint8Array[] = []
  for (const { ids, weights } of examples) {
    const mask = Uint8Array.from(weights, (weight) => (weight > 0 ? 1 : 0))
    parts.push(new Uint8Array(Int32Array.of(ids.length).buffer), new Uint8Array(Int32Array.from(ids).buffer), mask)
  }
  writeFileSync(path, Buffer.concat(parts))
}

/** With the CPU time of all threads: it moves less than the clock where others use the machine. */
async function answer(command: { do: string; path?: string }): Promise<object> {
  globalThis.gc?.()
  // What the last command's encodings held is given back in later turns of the event loop, not at the cost of this one.
  await settle()
  const before = process.cpuUsage()
  const told = await perform(command)
  const { user, system } = process.cpuUsage(before)
  return { ...told, cpu: (user + system) / 1e6 }
}

/** Turns of the event loop until one is idle: native objects that were collected are released there. */
async function settle(): Promise<void> {
  for (let quiet = 0; quiet < 20; ) {
    const { user } = process.cpuUsage()
    await setTimeout(10)
    quiet = process.cpuUsage().user - user < 2000 ? quiet + 1 : 0
  }
}

async function perform(command: { do: string; path?: string }): Promise<object> {
  if (command.do === 'write') {
    const { prepared, answer } = await whole({ ...options, cache: false })
    write(command.path!, prepared)
    return answer
  }
  if (command.do === 'cold') return (await whole({ ...options, cache: false })).answer
  if (command.do === 'fill') {
    rmSync(cache, { recursive: true, force: true })
    return (await whole(options)).answer
  }
  if (command.do === 'cached') return (await whole(options)).answer
  const began = performance.now()
  const encodings = await native.encodeBatch(texts, { addSpecialTokens: false })
  return { seconds: (performance.now() - began) / 1000, rows: encodings.length }
}

process.stdout.write(`${JSON.stringify({ texts: texts.length })}\n`)
for await (const line of createInterface({ input: process.stdin }))
  process.stdout.write(`${JSON.stringify(await answer(JSON.parse(line)))}\n`)
