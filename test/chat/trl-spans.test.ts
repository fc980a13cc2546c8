/** Templates without generation tags, as TRL ships them: what is trained is the reply as rendered and its stop token. */
import assert from 'node:assert/strict'
import fc from 'fast-check'
import { hasGenerationTags } from '../../lib/chat/jinja.ts'
import { renderWithSpans } from '../../lib/chat/spans.ts'
import { ChatTemplate } from '../../lib/chat/template.ts'
import type { Tokenizer } from '../../lib/chat/tokenizer.ts'
import type { Conversation } from '../../lib/data/conversation.ts'
import { RowProblem } from '../../lib/data/rows.ts'
import { TunesmithError } from '../../lib/errors.ts'
import { temporaryFolder } from '../data/helpers.ts'
import { golden, NOW, type Renderings } from './golden.ts'
import { dialogues, toyTokenizer } from './helpers.ts'

const SPECIAL = [
  ...['<s>', '</s>', '<|im_start|>', '<|im_end|>', '<|endoftext|>', '<｜end▁of▁sentence｜>', '<|end|>', '<|return|>'],
  ...['<|user|>', '<|assistant|>', '<|observation|>', '<|system|>', '<end_of_utterance>'],
]
/** What a template may write between prompt and reply: tags of reasoning (the prompt may have opened them) or a channel. */
const TAGS = /^(?:(?:<think>)?\s*<\/think>|<\|channel\|>final<\|message\|>|\s)*$/
/**
 * Nothing ends the turns of GLM but the start of the next, Idefics writes typed parts only, and the generation prompt of
 * these two opens a thought that their replies do not have.
 */
const REFUSED = ['glm4moe.jinja', 'idefics3.jinja', 'deepseek_r1_distill.jinja', 'deepseekv3.jinja']

describe("spans in TRL's templates without generation tags", () => {
  const { path } = temporaryFolder()
  let tokenizer: Tokenizer
  before(async () => {
    tokenizer = await toyTokenizer(path('toy'), { special: SPECIAL, bos: '<s>', eos: '</s>' })
  })

  const { templates } = golden<Renderings>('renderings.json.gz')
  for (const { name, source } of templates) {
    const file = name.slice('trl/'.length)
    if (!name.startsWith('trl/') || source === undefined || hasGenerationTags(source)) continue
    const make = () => new ChatTemplate(tokenizer, { name: file, sources: new Map([['default', source]]), now: NOW })
    if (REFUSED.includes(file)) {
      it(`${file}: refused`, () => {
        const own = make()
        fc.assert(
          fc.property(dialogues, (chat) => {
            assert.throws(
              () => spansOf(own, chat),
              (error) => error instanceof TunesmithError || error instanceof RowProblem,
            )
          }),
          { numRuns: 5 },
        )
      })
      continue
    }
    it(file, () => {
      const own = make()
      fc.assert(
        fc.property(dialogues, (chat) => {
          const seen = new Set<number>()
          for (const { text, spans } of spansOf(own, chat)) {
            for (const { start, end, turn } of spans) {
              seen.add(turn)
              const trained = text.slice(start, end)
              const stop = own.stopTokens.find((token) => trained.endsWith(token.text))!
              assert.ok(stop, trained)
              const written = trained.slice(0, trained.length - stop.text.length)
              const reply = chat.messages[turn]!.content!.trim()
              const at = written.lastIndexOf(reply)
              assert.ok(at >= 0, JSON.stringify([written, reply]))
              assert.match(written.slice(0, at), TAGS)
              assert.match(written.slice(at + reply.length), /^\s*$/)
              const prompt = own.render(chat.messages.slice(0, turn), { addGenerationPrompt: true })
              assert.equal(text.slice(0, start), prompt)
            }
          }
          assert.equal(seen.size, chat.messages.filter(({ role }) => role === 'assistant').length)
        }),
        { numRuns: 30 },
      )
    })
  }
})

function spansOf(own: ChatTemplate, chat: Conversation) {
  const turns = [...chat.messages.keys()].filter((index) => chat.messages[index]!.role === 'assistant')
  return renderWithSpans(own, chat, turns, 'split')
}
