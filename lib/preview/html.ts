/** A preview as one HTML file that needs nothing else: no script, no font, no request. */
import { verdictOf } from '../chat/doctor.ts'
import { place } from '../data/source.ts'
import type { Preview, PreviewExample, PreviewToken } from './preview.ts'
import { shownBytes, turnsOf, weightText } from './text.ts'

const STYLE = `
:root { color-scheme: light dark; --text: #1d1d1f; --page: #fff; --faint: #8a8a8f; --line: #d8d8dc;
  --context: #f3f3f5; --low: #fbe2a8; --one: #b9e6c1; --high: #d9c6f3; --special: #a3156b; }
@media (prefers-color-scheme: dark) { :root { --text: #e8e8ea; --page: #161618; --faint: #8e8e93; --line: #3a3a3e;
  --context: #242428; --low: #6b4e0d; --one: #17552a; --high: #4c2b7d; --special: #ff9ad5; } }
body { margin: 2rem auto; max-width: 60rem; padding: 0 1rem; background: var(--page); color: var(--text);
  font: 16px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.3rem; } h2 { font-size: 1rem; margin: 2rem 0 .5rem; overflow-wrap: anywhere; }
table { border-collapse: collapse; } th, td { padding: .1rem 1rem .1rem 0; text-align: left; font-weight: normal; }
td.number { text-align: right; } th { color: var(--faint); }
.turn { border-left: 3px solid var(--line); padding-left: .8rem; margin: .6rem 0; }
.role { color: var(--faint); font-size: .8rem; }
.tokens { font-family: ui-monospace, monospace; font-size: .9rem; line-height: 1.7; white-space: pre-wrap;
  overflow-wrap: anywhere; }
.t { border-radius: 3px; background: var(--context); box-shadow: inset -1px 0 var(--page); }
.low { background: var(--low); } .one { background: var(--one); } .high { background: var(--high); }
.special { color: var(--special); font-weight: bold; } .stand { color: var(--faint); }
.legend .t { padding: 0 .4rem; margin-right: .8rem; }
`

/** The whole file. */
export function htmlPreview(preview: Preview): string {
  const body = [
    '<h1>What training sees</h1>',
    '<p class="legend"><span class="t">context</span><span class="t low">weight below 1</span>' +
      '<span class="t one">weight 1</span><span class="t high">weight above 1</span>' +
      '<span class="t special">control token</span><span class="stand">·</span> space ' +
      '<span class="stand">↵</span> newline; id and weight of a token under the pointer</p>',
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
      `<div class="tokens" dir="ltr">${own.map((token) => tokenHtml(token, token === tokens[0])).join('')}</div></div>`,
  )
  return `<section><h2>${escaped(title)}</h2>\n${turns.join('\n')}</section>`
}

function tokenHtml({ id, weight, bytes, text, special }: PreviewToken, first: boolean): string {
  const classes = ['t', first ? '' : weightClass(weight), special ? 'special' : ''].filter(Boolean).join(' ')
  const note = first ? 'first token, which nothing predicts' : `weight ${weightText(weight)}`
  const title = `id ${id}, ${note}: ${text}`
  const inner = shownBytes(bytes).map(({ text: part, stand, breaks }) => {
    const shown = stand ? `<span class="stand">${escaped(part)}</span>` : escaped(part)
    return breaks ? `${shown}\n` : shown
  })
  return `<span class="${classes}" title="${escaped(title)}">${inner.join('')}</span>`
}

function weightClass(weight: number): string {
  if (weight === 0) return ''
  return weight < 1 ? 'low' : weight === 1 ? 'one' : 'high'
}

function doctorHtml({ doctor }: Preview): string[] {
  if (doctor.length === 0) return []
  const rows = doctor.map(
    ({ check, verdict, detail }) =>
      `<tr><td>${escaped(check)}</td><td>${escaped(verdict)}</td><td>${escaped(detail)}</td></tr>`,
  )
  return [`<h2>Template doctor: ${verdictOf(doctor)}</h2>`, `<table>${rows.join('\n')}</table>`]
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
