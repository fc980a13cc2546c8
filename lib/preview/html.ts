/** A preview as one HTML file that needs nothing else: no script, no font, no request. */
import { verdictOf } from '../chat/doctor.ts'
import { place } from '../data/source.ts'
import type { Preview, PreviewExample, PreviewToken } from './preview.ts'
import { shownBytes, turnsOf, weightText } from './text.ts'

/** Colours: text and stands have a contrast of 4.5 and more on every background, edges of tokens of 3. */
const STYLE = `
:root { color-scheme: light dark; --text: #1d1d1f; --page: #fff; --label: #5f5f66; --edge: #737379; --stand: #54545a;
  --context: #ececef; --low: #fbdf9f; --one: #b4e4bd; --high: #dccbf5; --special: #8f0f5c; --bad: #b3261e; }
@media (prefers-color-scheme: dark) { :root { --text: #f0f0f2; --page: #161618; --label: #a9a9b0; --edge: #9a9aa2;
  --stand: #c3c3ca; --context: #2b2b30; --low: #5f450b; --one: #154b26; --high: #472874; --special: #ff9ad5; --bad: #ff897d; } }
body { margin: 2rem auto; max-width: 60rem; padding: 0 1rem; background: var(--page); color: var(--text);
  font: 16px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.3rem; } h2 { font-size: 1rem; margin: 2rem 0 .5rem; }
h2, p, td { overflow-wrap: anywhere; }
section { content-visibility: auto; contain-intrinsic-size: auto 20rem; }
table { border-collapse: collapse; } th, td { padding: .1rem 1rem .1rem 0; text-align: left; font-weight: normal; }
td { vertical-align: top; } td:first-child, .doctor td:nth-child(2) { white-space: nowrap; overflow-wrap: normal; }
td.number { text-align: right; } th { color: var(--label); }
.warning > td, .error > td { font-weight: bold; } .warning > td:nth-child(2) { background: var(--low); padding: .1rem .4rem; }
.error > td:nth-child(2) { background: var(--bad); color: var(--page); padding-left: .4rem; }
@media (max-width: 40rem) { .doctor tr { display: block; margin-bottom: .5rem; } .doctor td { display: inline-block; padding-right: .6rem; }
  .doctor td:last-child { display: block; } }
.turn { border-left: 3px solid var(--edge); padding-left: .8rem; margin: .6rem 0; }
.role { color: var(--label); font-size: .8rem; }
.tokens { font-family: ui-monospace, monospace; font-size: .9rem; line-height: 1.7; white-space: pre-wrap;
  overflow-wrap: anywhere; }
i { font-style: normal; border-radius: 3px; background: var(--context); box-shadow: inset -1px 0 var(--edge); }
.low i { background: var(--low); } .one i { background: var(--one); } .high i { background: var(--high); }
i.s { color: var(--special); font-weight: bold; } u { color: var(--stand); text-decoration: none; white-space: nowrap; }
b { color: var(--label); font-size: .75rem; margin: 0 .3rem 0 .1rem; }
.legend > span { display: inline-block; white-space: nowrap; margin-right: .8rem; }
.legend i { padding: 0 .4rem; box-shadow: inset 0 0 0 1px var(--edge); }
`

const LEGEND = [
  '<i>context</i>',
  '<span class="low"><i>weight below 1</i></span>',
  '<span class="one"><i>weight 1</i></span>',
  '<span class="high"><i>weight above 1</i></span>',
  '<b>×0.5</b> the weight of the tokens before it',
  '<i class="s">control token</i>',
  '<u>·</u> space',
  '<u>↵</u> newline',
  'id and weight of a token under the pointer',
]

/** The whole file. */
export function htmlPreview(preview: Preview): string {
  const body = [
    '<h1>What training sees</h1>',
    `<p class="legend">${LEGEND.map((entry) => `<span>${entry}</span>`).join(' ')}</p>`,
    ...preview.examples.map(exampleHtml),
    '<h2>Tokens per role</h2>',
    roleTable(preview),
    ...doctorHtml(preview),
    ...preview.formats.map(
      ({ file, format, evidence }) => `<p>${escaped(file)}: read as ${escaped(format)}, ${escaped(evidence)}</p>`,
    ),
    ...preview.warnings.map(({ code, message }) => `<p>${escaped(message)} [${escaped(code)}]</p>`),
  ]
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>Preview: what training sees</title>
<style>${STYLE}</style>
</head>
<body>
${body.join('\n')}
</body>
</html>
`
}

function exampleHtml({ source, piece, pieces, tokens, supervisedTokens }: PreviewExample): string {
  const part = pieces > 1 ? `, part ${piece} of ${pieces}` : ''
  const title = `${place(source)}${part}: ${tokens.length} tokens, ${supervisedTokens} with loss`
  const turns = turnsOf(tokens).map(
    ({ role, tokens: own }) =>
      `<div class="turn"><div class="role">${escaped(role)}</div>` +
      // dir: text in a right-to-left script must not turn the template around it.
      `<div class="tokens" dir="ltr">${tokensHtml(own, tokens[0])}</div></div>`,
  )
  return `<section><h2>${escaped(title)}</h2>\n${turns.join('\n')}</section>`
}

/** Tokens of one weight stand together, and where it is neither 0 nor 1 it is written behind them. */
function tokensHtml(tokens: readonly PreviewToken[], first: PreviewToken | undefined): string {
  const runs: { weight: number; parts: string[] }[] = []
  for (const token of tokens) {
    // Nothing predicts the first token, so that its weight does not count.
    const weight = token === first ? 0 : token.weight
    if (runs.at(-1)?.weight !== weight) runs.push({ weight, parts: [] })
    runs.at(-1)!.parts.push(tokenHtml(token, token === first ? 'first' : `×${weightText(weight)}`))
  }
  return runs
    .map(({ weight, parts }) => {
      // Lines break between tokens.
      const text = parts.join('<wbr>')
      if (weight === 0) return text
      const shown = weight === 1 ? '' : `<b>×${weightText(weight)}</b>`
      return `<span class="${weightClass(weight)}">${text}</span>${shown}`
    })
    .join('<wbr>')
}

/** Short tags: a page holds a hundred thousand of them. */
function tokenHtml({ id, bytes, special }: PreviewToken, note: string): string {
  const inner = shownBytes(bytes).map(({ text, stand, breaks }) => {
    const shown = stand ? `<u>${escaped(text)}</u>` : escaped(text)
    return breaks ? `${shown}\n` : shown
  })
  return `<i${special ? ' class="s"' : ''} title="id ${id} ${note}">${inner.join('')}</i>`
}

function weightClass(weight: number): string {
  return weight < 1 ? 'low' : weight === 1 ? 'one' : 'high'
}

function doctorHtml({ doctor }: Preview): string[] {
  if (doctor.length === 0) return []
  const rows = doctor.map(
    ({ check, verdict, detail }) =>
      `<tr class="${verdict}"><td>${escaped(check)}</td><td>${escaped(verdict)}</td><td>${escaped(detail)}</td></tr>`,
  )
  return [`<h2>Template doctor: ${verdictOf(doctor)}</h2>`, `<table class="doctor">${rows.join('\n')}</table>`]
}

function roleTable({ roles }: Preview): string {
  const rows = roles.map(
    ({ role, tokens, supervisedTokens }) =>
      `<tr><td>${escaped(role)}</td><td class="number">${tokens}</td><td class="number">${supervisedTokens}</td></tr>`,
  )
  return `<table><tr><th>role</th><th>tokens</th><th>with loss</th></tr>\n${rows.join('\n')}\n</table>`
}

function escaped(text: string): string {
  return text
    .replaceAll('&', '&amp;')
    .replaceAll('<', '&lt;')
    .replaceAll('>', '&gt;')
    .replaceAll('"', '&quot;')
    .replaceAll("'", '&#39;')
}
