import assert from 'node:assert/strict'
import { readFile } from 'node:fs/promises'
import { fileURLToPath } from 'node:url'
import { weighTokens, weightedText } from '../../lib/chat/weights.ts'
import { realTokenizer } from '../chat/helpers.ts'
import { describeShared } from '../shared.ts'

// Made by scripts/python/make_prompt_golden.py.
const golden = fileURLToPath(new URL('../golden/data/prompt-completion.json', import.meta.url))

describeShared('prompt and completion as text, beside Transformers', () => {
  for (const name of ['llama3', 'qwen3', 'gpt2', 'llama2', 'minimind', 'deepseek_v3']) {
    it(`have the same ids and the same loss with the tokenizer of ${name}`, async () => {
      const { pairs, tokenizers } = JSON.parse(await readFile(golden, 'utf8'))
      const tokenizer = await realTokenizer(name)
      for (const [index, [prompt, completion]] of pairs.entries()) {
        const row = { text: prompt + completion, promptLength: prompt.length, source: { file: 'a.jsonl', line: 1 } }
        const text = weightedText(row, tokenizer, { trainOn: 'assistant', promptLossWeight: 0 })
        const { ids, weights } = weighTokens(text, await tokenizer.encode(text.text), tokenizer)
        const expected = tokenizers[name][index]
        assert.deepEqual([...ids], expected.ids, JSON.stringify(prompt))
        // The first token of a sequence is nobody's target.
        const loss = expected.ids.map((_: number, at: number) => (at >= Math.max(1, expected.prompt) ? 1 : 0))
        assert.deepEqual([...weights], loss, JSON.stringify(prompt))
      }
    })
  }
})
