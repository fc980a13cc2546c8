/** A preview on a terminal: loss weights as background colours; in a pipe, what carries loss stands in brackets. */
import { place } from '../data/source.ts'
import type { Preview, PreviewExample, PreviewToken } from './preview.ts'
import { type Shown, shownBytes, type TurnTokens, turnsOf, weightText } from './text.ts'

export interface TerminalOptions {
  color: boolean
  /** Columns, for rules. */
  width: number
}

const RESET = '\x1b[0m'
const DIM = '\x1b[2m'
const BOLD = '\x1b[1m'
/** Of control tokens, so that they differ from the same letters in text. */
const SPECIAL = '\x1b[1;35m'
const SPECIAL_WITH_LOSS = '\x1b[1;4m'
/** Backgrounds by weight, two of each: neighbouring tokens are told apart. White text on all of them. */
const BACKGROUNDS = {
  low: ['\x1b[97;48;5;94m', '\x1b[97;48;5;130m'],
  one: ['\x1b[97;48;5;22m', '\x1b[97;48;5;28m'],
  high: ['\x1b[97;48;5;54m', '\x1b[97;48;5;91m'],
} as const

/** All examples, with a legend before them. */
export function terminalPreview(preview: Preview, options: TerminalOptions): string {
  return [legend(options), ...preview.examples.map((example) => exampleText(example, options))].join('\n')
}

function legend({ color }: TerminalOptions): string {
  if (!color)
    return 'Tokens between ⟦ and ⟧ carry loss; ⟧×0.5 tells a weight that is not 1. ‹ › are around control tokens. · is a space, ↵ a newline.\n'
  const sample = (name: keyof typeof BACKGROUNDS, text: string) => `${BACKGROUNDS[name][0]} ${text} ${RESET}`
  const samples = [
    `${DIM}context${RESET}`,
    sample('low', 'weight below 1'),
    sample('one', 'weight 1'),
    sample('high', 'weight above 1'),
    `${SPECIAL}control token${RESET}`,
  ]
  return `${samples.join('  ')}  · space  ↵ newline\n`
}

function exampleText(example: PreviewExample, options: TerminalOptions): string {
  const { source, piece, pieces, tokens, supervisedTokens } = example
  const part = pieces > 1 ? `, part ${piece} of ${pieces}` : ''
  const title = `${place(source)}${part}: ${tokens.length} tokens, ${supervisedTokens} with loss`
  const { color, width } = options
  const rule = '═'.repeat(Math.max(3, width - title.length - 4))
  const head = color ? `${BOLD}══ ${title} ${rule}${RESET}` : `══ ${title} ${rule}`
  let shade = 0
  const turns = turnsOf(tokens).map((turn) => {
    const text = `${turnRule(turn, options)}\n${color ? colored(turn, tokens[0]!, shade) : bracketed(turn, tokens[0]!)}`
    shade += turn.tokens.length
    return text.endsWith('\n') ? text : `${text}\n`
  })
  return `${head}\n${turns.join('')}`
}

function turnRule({ role }: TurnTokens, { color, width }: TerminalOptions): string {
  const rule = `── ${role} ${'─'.repeat(Math.max(3, Math.min(width, 60) - role.length - 4))}`
  return color ? `${DIM}${rule}${RESET}` : rule
}

/**
 * Every token with its own style, which ends before a line does: a background must not run to the edge. Behind tokens of
 * a weight that is neither 0 nor 1 it is written.
 */
function colored({ tokens }: TurnTokens, first: PreviewToken, firstShade: number): string {
  let text = ''
  for (const [index, token] of tokens.entries()) {
    const style = styleOf(token, (firstShade + index) % 2)
    text += shownBytes(token.bytes)
      .map(({ text: part, breaks }) => `${style}${part}${RESET}${breaks ? '\n' : ''}`)
      .join('')
    const { weight } = token
    const ends = tokens[index + 1]?.weight !== weight
    if (ends && weight !== 0 && weight !== 1 && token !== first)
      text = closeBefore(text, `${DIM}×${weightText(weight)}${RESET}`)
  }
  return text
}

function styleOf({ weight, special }: PreviewToken, shade: number): string {
  if (weight === 0) return special ? SPECIAL : shade === 1 ? DIM : ''
  const background = BACKGROUNDS[weight < 1 ? 'low' : weight === 1 ? 'one' : 'high'][shade]!
  return special ? background + SPECIAL_WITH_LOSS : background
}

/** `first` is the token that nothing predicts, so that its weight does not count. */
function bracketed({ tokens }: TurnTokens, first: PreviewToken): string {
  let text = ''
  let open = 0
  const close = () => {
    // A newline at the end of a run is inside it.
    if (open !== 0) text = closeBefore(text, `⟧${open === 1 ? '' : `×${weightText(open)}`}`)
    open = 0
  }
  for (const token of tokens) {
    const weight = token === first ? 0 : token.weight
    if (weight !== open) {
      close()
      if (weight !== 0) text += '⟦'
      open = weight
    }
    const shown = shownBytes(token.bytes).map(withBreak).join('')
    text += token.special ? `‹${shown}›` : shown
  }
  close()
  return text
}

function withBreak({ text, breaks }: Shown): string {
  return breaks ? `${text}\n` : text
}

function closeBefore(text: string, bracket: string): string {
  return text.endsWith('\n') ? `${text.slice(0, -1)}${bracket}\n` : text + bracket
}
