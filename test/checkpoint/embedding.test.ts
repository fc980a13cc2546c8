import assert from 'node:assert/strict'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { embeddingRows } from '../../lib/checkpoint/embedding.ts'
import { openCheckpoint } from '../../lib/checkpoint/open.ts'

const BASE = fileURLToPath(new URL('../../assets/base', import.meta.url))

describe('embedding rows', () => {
  it('are those of the whole matrix', async () => {
    const checkpoint = await openCheckpoint(BASE)
    const { vocabSize, hiddenSize } = checkpoint.spec
    const all = await embeddingRows(
      checkpoint,
      Array.from({ length: vocabSize }, (_, id) => id),
    )
    assert.equal(all.length, vocabSize)
    assert.ok(all.every((row) => row.length === hiddenSize && row.every(Number.isFinite)))
    const some = [vocabSize - 1, 0, 17]
    assert.deepEqual(
      await embeddingRows(checkpoint, some),
      some.map((id) => all[id]!),
    )
    assert.notDeepEqual(all[0], all[17])
  })

  const values = [1, -2.5, 0, 0.15625, 65504, 2 ** -24]
  const types: [string, number, (view: DataView, at: number, value: number) => void][] = [
    ['F64', 8, (view, at, value) => view.setFloat64(at, value, true)],
    ['F32', 4, (view, at, value) => view.setFloat32(at, value, true)],
    [
      'BF16',
      2,
      (view, at, value) => view.setUint16(at, new Uint32Array(Float32Array.of(value).buffer)[0]! >>> 16, true),
    ],
    ['F16', 2, (view, at, value) => view.setUint16(at, HALVES.get(value)!, true)],
  ]
  const HALVES = new Map([
    [1, 0x3c00],
    [-2.5, 0xc100],
    [0, 0],
    [0.15625, 0x3100],
    [65504, 0x7bff],
    [2 ** -24, 1],
  ])
  for (const [dtype, size, write] of types) {
    it(`are read from ${dtype}`, async () => {
      const folder = mkdtempSync(join(tmpdir(), 'tunesmith-test-'))
      try {
        const bytes = new Uint8Array(2 * values.length * size)
        const view = new DataView(bytes.buffer)
        for (const [index, value] of values.entries()) write(view, (values.length + index) * size, value)
        const file = join(folder, 'x.safetensors')
        writeFileSync(file, bytes)
        const tensor = {
          name: 'e',
          dtype,
          shape: [2, values.length],
          elements: 2 * values.length,
          begin: 0,
          end: bytes.length,
          file,
          position: 0,
        }
        const checkpoint = { tensors: { tensors: new Map([['e', tensor]]) }, family: { embeddingTensor: 'e' } }
        const [row] = await embeddingRows(checkpoint as never, [1])
        const expected =
          dtype === 'BF16'
            ? values.map(
                (value) =>
                  new Float32Array(
                    Uint32Array.of((new Uint32Array(Float32Array.of(value).buffer)[0]! >>> 16) << 16).buffer,
                  )[0]!,
              )
            : values
        assert.deepEqual([...row!], expected)
      } finally {
        rmSync(folder, { recursive: true })
      }
    })
  }
})
