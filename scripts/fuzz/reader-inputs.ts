/** Files for the readers: rows of every layout in every container, whole or damaged, and what no program would write. */
import { gzipSync } from 'node:zlib'
import type { RowFormat } from '../../lib/data/layouts/layout.ts'
import type { Random } from '../random.ts'

export interface Input {
  /** Name of the file; its end tells the container. */
  name: string
  content: Buffer
  format: RowFormat
  /** Rows that the file must be found to have, where that is known without the readers. */
  rows?: number
}

const FORMATS: readonly RowFormat[] = ['auto', 'messages', 'sharegpt', 'alpaca', 'prompt-completion', 'text', 'tokens']

const TEXTS = [
  ...[
    '',
    ' ',
    'Hi',
    'a,b',
    'a "quoted" word',
    'two\nlines',
    '\r\n',
    '\u2028',
    'é😀𝕏',
    '\ud83d',
    '\udc00x',
    '\u0000',
    '\ufeff',
  ],
  ...[
    '[{"role": "user", "content": "x"}]',
    '{"name": "f", "arguments": {}}',
    "[{'role': 'user'}]",
    'null',
    '1e999',
    '<|im_end|>',
  ],
  'long '.repeat(2000),
]
const ODD: readonly unknown[] = [
  ...[null, true, 0, -1, 1.5, 1e308, 5e-324, 2 ** 53, -0, '', [], {}, [[]], [null], { a: { b: [] } }, '__proto__'],
  ...[{ ['__proto__']: 1 }, { constructor: 'x' }, { toString: 1 }],
]

function message(random: Random): unknown {
  const value: Record<string, unknown> = {
    role: random.pick(['user', 'assistant', 'system', 'tool', 'developer', 'human', 'toString', 3]),
    content: random.chance(0.8)
      ? random.pick(TEXTS)
      : random.pick([null, [{ type: 'text', text: 'x' }], [{ type: 'image' }], 3]),
  }
  if (random.chance(0.2)) value.weight = random.pick([0, 1, 0.5, -1, '1', 1e39, null])
  if (random.chance(0.2)) {
    value.tool_calls = random.pick([
      null,
      [],
      [{ type: 'function', function: { name: 'f', arguments: {} } }],
      [{}],
      'x',
    ])
  }
  return value
}

function list<T>(random: Random, most: number, make: () => T): T[] {
  return Array.from({ length: random.below(most + 1) }, make)
}

function row(random: Random): unknown {
  const value: Record<string, unknown> = {}
  const text = () => (random.chance(0.9) ? random.pick(TEXTS) : random.pick(ODD))
  switch (random.below(8)) {
    case 0:
      value.messages = list(random, 4, () => message(random))
      break
    case 1:
      value.conversations = list(random, 4, () => ({
        from: random.pick(['human', 'gpt', 'function_call', 'observation', 'system', 'constructor', 1]),
        value: text(),
      }))
      break
    case 2:
      Object.assign(value, { instruction: text(), input: text(), output: text() })
      if (random.chance(0.3)) value.history = random.pick([null, [['a', 'b']], [['a']], [[]], 'x', [1]])
      break
    case 3:
      Object.assign(value, { prompt: text(), completion: text() })
      break
    case 4:
      value.prompt = list(random, 2, () => message(random))
      value.completion = list(random, 2, () => message(random))
      break
    case 5:
      value.input_ids = list(random, 5, () => random.pick<unknown>([1, 2, 70000, -1, 1.5, 2 ** 40, '1', null]))
      if (random.chance(0.5)) value.labels = list(random, 5, () => random.pick<unknown>([1, 2, -100, 'x']))
      if (random.chance(0.3)) value.weights = list(random, 5, () => random.pick<unknown>([0, 1, 0.5, -1, 1e39]))
      break
    case 6:
      value.text = text()
      break
    default:
      return random.pick(ODD)
  }
  if (random.chance(0.2)) value.tools = random.pick([[], '[]', '[{"name": "f"}]', '[', [{}], null, 3])
  if (random.chance(0.2))
    value[random.pick(['weight', 'system', 'id', 'chosen', 'rejected', 'text', '__proto__'])] = random.pick(ODD)
  return value
}

function deep(random: Random): string {
  const depth = 10 ** random.below(6)
  const open = random.pick(['[', '{"a":', '{"messages":['])
  const close = open === '[' ? ']' : open.endsWith('[') ? ']}' : '}'
  return open.repeat(depth) + random.pick(['', '1', '"x"']) + (random.chance(0.7) ? close.repeat(depth) : '')
}

/** Text of one value as JSON, sometimes as no program would write it. */
function json(random: Random): string {
  if (random.chance(0.03)) return deep(random)
  const text = JSON.stringify(row(random), null, random.chance(0.1) ? 1 : 0)
  if (random.chance(0.05))
    return text.replace(
      /"[^"]*"/,
      random.pick(['1e400', '-', '01', 'NaN', '9'.repeat(400), '"\\ud800"', '"\\x"', "'a'"]),
    )
  return text
}

function jsonl(random: Random): { text: string; rows: number } {
  const lines = list(random, 8, () => json(random).replaceAll('\n', ' '))
  const end = random.pick(['\n', '\r\n', '\n\n'])
  // A byte order mark of a row is the row's, unless it is the first thing of the file, where it is the file's.
  return { text: lines.join(end) + random.pick(['', end]), rows: lines.filter((line) => line.trim() !== '').length }
}

function csv(random: Random): { text: string; rows: number } {
  const header = random.pick([
    ...[
      'messages',
      'text',
      'instruction,input,output',
      'prompt,completion',
      'input_ids,labels',
      'conversations,tools',
      'a,b',
    ],
  ])
  const columns = header.split(',').length
  const cell = () => {
    const text = random.chance(0.5) ? random.pick(TEXTS) : JSON.stringify(row(random))
    return `"${text.replaceAll('"', '""')}"`
  }
  const records = list(random, 6, () => Array.from({ length: columns }, cell).join(','))
  const end = random.pick(['\n', '\r\n'])
  return {
    text: [header, ...records].join(end) + random.pick(['', end]),
    // A record of one empty cell cannot be told from a blank line.
    rows: records.filter((record) => record !== '""').length,
  }
}

/** `content` with a few of its bytes changed, as disks, editors and transfers do. */
function damage(random: Random, content: Buffer): Buffer {
  let bytes: Buffer = Buffer.from(content)
  for (let times = 1 + random.below(3); times > 0; times--) {
    const at = random.below(bytes.length + 1)
    const length = random.below(random.pick([2, 20, bytes.length + 1]))
    switch (random.below(6)) {
      case 0:
        if (at < bytes.length) bytes[at] = random.below(256)
        break
      case 1:
        bytes = bytes.subarray(0, at)
        break
      case 2:
        bytes = Buffer.concat([bytes.subarray(0, at), bytes.subarray(at + length)])
        break
      case 3:
        bytes = Buffer.concat([bytes.subarray(0, at), bytes.subarray(at, at + length), bytes.subarray(at)])
        break
      case 4:
        bytes = Buffer.concat([
          bytes.subarray(0, at),
          Buffer.from(random.pick(['"', '\\', '[', '}', ',', '\n', '\ufeff', '\u0000'])),
          bytes.subarray(at),
        ])
        break
      default:
        if (at + 4 <= bytes.length) bytes.writeUInt32LE(random.pick([0, 1, 0x7fffffff, 0xffffffff, 0x80000000]), at)
    }
  }
  return bytes
}

function noise(random: Random): Buffer {
  return Buffer.from(list(random, 400, () => random.below(256)))
}

/** zstd in raw blocks; enough for the reader, which is what is tried here. */
export function rawZstd(content: Buffer): Buffer {
  const parts: Uint8Array[] = [Buffer.from([0x28, 0xb5, 0x2f, 0xfd, 0x00, 0x50])]
  for (let at = 0; at === 0 || at < content.length; at += 100_000) {
    const block = content.subarray(at, at + 100_000)
    const header = Buffer.alloc(3)
    header.writeUIntLE((block.length << 3) | (at + 100_000 >= content.length ? 1 : 0), 0, 3)
    parts.push(header, block)
  }
  return Buffer.concat(parts)
}

/** The next input. `seeds` are real files whose content is damaged: `.parquet` and `.zst` as other programs write them. */
export function nextInput(random: Random, seeds: readonly { name: string; content: Buffer }[]): Input {
  const format = random.chance(0.7) ? 'auto' : random.pick(FORMATS)
  if (seeds.length > 0 && random.chance(0.2)) {
    const { name, content } = random.pick(seeds)
    return { name, content: damage(random, content), format }
  }
  if (random.chance(0.03)) {
    const name = random.pick(['a.jsonl', 'a.json', 'a.csv', 'a.parquet', 'a.jsonl.gz', 'a.jsonl.zst'])
    return { name, content: noise(random), format }
  }
  const input = whole(random, format)
  const damaged = random.chance(0.5)
  if (damaged) input.content = damage(random, input.content)
  const compression = random.below(10)
  if (compression < 2) {
    input.name += compression === 0 ? '.gz' : '.zst'
    const { content } = input
    input.content = compression === 0 ? gzipSync(new Uint8Array(content), { level: 1 }) : rawZstd(content)
    if (random.chance(0.3)) return { name: input.name, content: damage(random, input.content), format }
  }
  if (damaged) delete input.rows
  return input
}

function isJson(text: string): boolean {
  try {
    JSON.parse(text)
    return true
  } catch {
    return false
  }
}

function whole(random: Random, format: RowFormat): Input {
  switch (random.below(3)) {
    case 0: {
      const { text, rows } = jsonl(random)
      return { name: 'a.jsonl', content: Buffer.from(text), format, rows }
    }
    case 1: {
      const values = list(random, 8, () => json(random))
      const text = random.chance(0.5)
        ? `[${values.join(', ')}]`
        : `{"version": "[", "data": [${values.join(',\n')}], "n": {}}`
      const content = Buffer.from(text)
      return isJson(text)
        ? { name: 'a.json', content, format, rows: values.length }
        : { name: 'a.json', content, format }
    }
    default: {
      const { text, rows } = csv(random)
      return { name: 'a.csv', content: Buffer.from(text), format, rows }
    }
  }
}
