import assert from 'node:assert/strict'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { run } from '../../lib/cli/run.ts'
import { htmlPreview, jsonPreview, type Preview, type PreviewToken, Trainer, terminalPreview } from '../../lib/index.ts'
import { tokenText } from '../../lib/preview/text.ts'
import { nothingLost } from '../batch/helpers.ts'
import { tunesmithHere } from '../cli/spawn.ts'
import { exchange, failure, jsonl } from '../data/helpers.ts'
import { scratchFolder, tinyOptions } from '../trainer/runs.ts'

const ESCAPE = '\x1b'
const STYLE = new RegExp(`${ESCAPE}\\[[\\d;]*m`, 'g')
const BACKGROUND = new RegExp(`${ESCAPE}\\[97;48;5;(\\d+)m(?:${ESCAPE}\\[1;4m)?([^${ESCAPE}]+)`, 'g')

const user = { role: 'user', index: 0 }
const assistant = { role: 'assistant', index: 1 }
const hedgehog = Buffer.from('🦔')

function token(text: string | Uint8Array, weight: number, turn: PreviewToken['turn'], special = false): PreviewToken {
  const bytes = typeof text === 'string' ? Buffer.from(text) : text
  return { id: 7, weight, bytes, text: tokenText(bytes), special, turn }
}

const tokens = [
  token('<|user|>', 0, user, true),
  token('Hi <b>&"\'', 0, user),
  token('\n', 0, user),
  token('<|bot|>', 0, assistant, true),
  token(' \x1b[31m', 0.5, assistant),
  token('a\nb', 1, assistant),
  token(hedgehog.subarray(0, 2), 1, assistant),
  token(hedgehog.subarray(2), 2, assistant),
  token('<|end|>', 1, assistant, true),
  token('\n', 0, assistant),
]

const preview: Preview = {
  examples: [{ source: { file: 'chat<1>.jsonl', line: 3 }, piece: 1, pieces: 2, tokens, supervisedTokens: 5 }],
  roles: [
    { role: 'user', tokens: 3, supervisedTokens: 0 },
    { role: 'assistant', tokens: 7, supervisedTokens: 5 },
  ],
  template: 'model',
  doctor: [
    { check: 'stop token', verdict: 'ok', detail: 'every turn ends in <|end|>' },
    { check: 'bos', verdict: 'warning', detail: 'twice' },
  ],
  formats: [{ file: 'chat<1>.jsonl', format: 'messages', evidence: 'has "messages" & more' }],
  counts: {
    rows: 1,
    ...nothingLost,
    split: 1,
  },
  warnings: [{ code: 'WARN_X', message: 'beware of <script>' }],
}

describe('preview on a terminal', () => {
  it('puts what carries loss between brackets where there is no colour', () => {
    assert.equal(
      terminalPreview(preview, { color: false, width: 60 }),
      `Tokens between ⟦ and ⟧ carry loss; ⟧×0.5 tells a weight that is not 1. ‹ › are around control tokens. · is a space, ↵ a newline.

══ chat<1>.jsonl:3, part 1 of 2: 10 tokens, 5 with loss ════
── user ────────────────────────────────────────────────────
‹<|user|>›Hi·<b>&"'↵
── assistant ───────────────────────────────────────────────
‹<|bot|>›⟦·⟨U+001B⟩[31m⟧×0.5⟦a↵
b⟨F0 9F⟩⟧⟦⟨A6 94⟩⟧×2⟦‹<|end|>›⟧↵
`,
    )
  })

  it('gives every token a style that ends with it and with the line', () => {
    const colored = terminalPreview(preview, { color: true, width: 60 })
    const lines = colored.split('\n')
    for (const line of lines) {
      const styles = line.match(STYLE) ?? []
      assert.ok(styles.length === 0 || styles.at(-1) === '\x1b[0m', JSON.stringify(line))
      assert.ok(!line.replace(STYLE, '').includes(ESCAPE))
    }
    const backgrounds = [...colored.matchAll(BACKGROUND)].map(([, color, text]) => [color, text])
    // The first three are the legend's.
    assert.deepEqual(backgrounds.slice(3), [
      ['94', '·'],
      ['94', '⟨U+001B⟩'],
      ['94', '[31m'],
      ['28', 'a'],
      ['28', '↵'],
      ['28', 'b'],
      ['22', '⟨F0 9F⟩'],
      ['91', '⟨A6 94⟩'],
      ['22', '<|end|>'],
    ])
    assert.ok(colored.includes('\x1b[1;35m<|user|>\x1b[0m'))
    const plain = colored.replace(STYLE, '')
    assert.ok(plain.includes('<|user|>Hi·<b>&"\'↵\n'))
    assert.ok(plain.includes('<|bot|>·⟨U+001B⟩[31m×0.5a↵\nb⟨F0 9F⟩⟨A6 94⟩×2<|end|>↵'))
  })

  it('draws its rules as wide as the terminal', () => {
    for (const width of [30, 60, 100]) {
      const [, , title] = terminalPreview(preview, { color: false, width }).split('\n')
      assert.equal(title!.length, Math.max(width, '══ chat<1>.jsonl:3, part 1 of 2: 10 tokens, 5 with loss ═══'.length))
    }
  })
})

/** As WCAG has it. */
function contrast(a: string, b: string): number {
  const luminance = (color: string) => {
    const digits = color.length === 4 ? [...color.slice(1)].map((digit) => digit + digit) : color.slice(1).match(/../g)!
    const [red, green, blue] = digits.map((hex) => {
      const value = Number.parseInt(hex, 16) / 255
      return value <= 0.03928 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4
    })
    return 0.2126 * red! + 0.7152 * green! + 0.0722 * blue!
  }
  const [light, dark] = [luminance(a), luminance(b)].sort((x, y) => y - x)
  return (light! + 0.05) / (dark! + 0.05)
}

describe('preview as HTML', () => {
  const page = htmlPreview(preview)

  it('has one element per token, with id and weight, those of one weight together', () => {
    const body = page.slice(page.indexOf('class="turn"'))
    const marked = [...body.matchAll(/<i( class="s")? title="([^"]*)">/g)].map(([, name, title]) => [
      name !== undefined,
      title,
    ])
    assert.deepEqual(marked, [
      [true, 'id 7 first'],
      [false, 'id 7 ×0'],
      [false, 'id 7 ×0'],
      [true, 'id 7 ×0'],
      [false, 'id 7 ×0.5'],
      [false, 'id 7 ×1'],
      [false, 'id 7 ×1'],
      [false, 'id 7 ×2'],
      [true, 'id 7 ×1'],
      [false, 'id 7 ×0'],
    ])
    const runs = [...body.matchAll(/<span class="(low|one|high)">(.*?)<\/span>(?:<b>(.*?)<\/b>)?/gs)]
    assert.deepEqual(
      runs.map(([, name, inner, weight]) => [name, inner!.match(/<i /g)!.length, weight]),
      [
        ['low', 1, '×0.5'],
        ['one', 2, undefined],
        ['high', 1, '×2'],
        ['one', 1, undefined],
      ],
    )
    assert.ok(body.includes('<u>·</u><u>⟨U+001B⟩</u>[31m') && body.includes('a<u>↵</u>\nb'))
    // Lines break between tokens.
    assert.equal(body.match(/<wbr>/g)!.length, 10 - 2)
  })

  it('can be read: contrast of text on every background, in both schemes', () => {
    const [light, dark] = [...page.matchAll(/:root \{([^}]*)\}/g)].map(([, rules]) =>
      Object.fromEntries([...rules!.matchAll(/--(\w+): (#[0-9a-f]+)/g)].map(([, name, color]) => [name, color!])),
    )
    for (const colors of [light!, dark!]) {
      for (const background of ['page', 'context', 'low', 'one', 'high']) {
        for (const name of ['text', 'stand', 'special'])
          assert.ok(contrast(colors[name]!, colors[background]!) >= 4.5, `${name} on ${background}`)
        assert.ok(contrast(colors.edge!, colors[background]!) >= 3, `edge on ${background}`)
      }
      assert.ok(contrast(colors.label!, colors.page!) >= 4.5 && contrast(colors.bad!, colors.page!) >= 4.5)
    }
  })

  it('marks what the doctor warns of, and takes few bytes per token', () => {
    assert.match(page, /<tr class="warning"><td>bos<\/td><td>warning<\/td>/)
    assert.match(page, /<tr class="ok"><td>stop token/)
    const long = { ...preview.examples[0]!, tokens: new Array(10_000).fill(token(' word', 0, user)) }
    const size = (htmlPreview({ ...preview, examples: [long] }).length - page.length) / 10_000
    assert.ok(size < 50, `${size} bytes`)
  })

  it('lets nothing of the data be markup, and needs nothing from elsewhere', () => {
    assert.ok(
      !page.includes('Hi·<b>') &&
        !page.includes('Hi<u>·</u><b>') &&
        !page.includes('<script') &&
        !page.includes('chat<1>'),
    )
    assert.ok(page.includes('chat&lt;1&gt;.jsonl:3') && page.includes('beware of &lt;script&gt;'))
    assert.doesNotMatch(page, /(src|href)=|url\(|@import|https?:/)
    assert.ok(page.includes('Template doctor: warning') && page.includes('every turn ends in &lt;|end|&gt;'))
    assert.ok(page.includes('read as messages, has &quot;messages&quot; &amp; more'))
    assert.ok(page.includes("default-src 'none'"))
  })

  it('has a legend, both colour schemes, and the totals', () => {
    assert.ok(page.includes('class="legend"') && page.includes('prefers-color-scheme: dark'))
    assert.match(page, /<td>assistant<\/td><td class="number">7<\/td><td class="number">5<\/td>/)
  })

  it('closes what it opens', () => {
    const open: string[] = []
    for (const [, slash, name] of page.matchAll(/<(\/?)([a-z0-9]+)[^>]*>/g)) {
      if (name === 'meta' || name === 'wbr') continue
      if (slash === '') open.push(name!)
      else assert.equal(open.pop(), name)
    }
    assert.deepEqual(open, [])
  })
})

describe('preview as JSON lines', () => {
  it('gives ids, weights, source and tokens of each', () => {
    const [line, last] = jsonPreview(preview)
      .trimEnd()
      .split('\n')
      .map((text) => JSON.parse(text))
    assert.deepEqual(line, {
      ids: new Array(10).fill(7),
      weights: [0, 0, 0, 0, 0.5, 1, 1, 2, 1, 0],
      source: { file: 'chat<1>.jsonl', line: 3 },
      piece: 1,
      pieces: 2,
      tokens: ['<|user|>', 'Hi·<b>&"\'', '↵', '<|bot|>', '·⟨U+001B⟩[31m', 'a↵b', '⟨F0 9F⟩', '⟨A6 94⟩', '<|end|>', '↵'],
      turns: [
        { role: 'user', start: 0, end: 3 },
        { role: 'assistant', start: 3, end: 10 },
      ],
    })
    const { roles, template, formats, counts, warnings } = preview
    const doctor = { verdict: 'warning', findings: preview.doctor }
    assert.deepEqual(last, { summary: { roles, template, doctor, formats, counts, warnings } })
    const [whole] = preview.examples
    const two = { ...preview, examples: [{ ...whole!, pieces: 1 }, whole!] }
    const lines = jsonPreview(two).trimEnd().split('\n')
    assert.equal(lines.length, 3)
    assert.deepEqual(Object.keys(JSON.parse(lines[0]!)), ['ids', 'weights', 'source', 'tokens', 'turns'])
  })
})

describe('tunesmith preview', () => {
  let folder: string
  let config: string
  before(() => {
    folder = scratchFolder()
    const train = join(folder, 'chat.jsonl')
    writeFileSync(train, jsonl(...Array.from({ length: 9 }, (_, i) => exchange(`Question ${i}?`, `Answer ${i}.`))))
    config = join(folder, 'config.json')
    writeFileSync(config, JSON.stringify(tinyOptions(folder, { data: { train } })))
  })

  async function onTerminal(args: string[], env: Record<string, string>, isTTY: boolean): Promise<string> {
    let stdout = ''
    const saved = { NO_COLOR: process.env.NO_COLOR, TERM: process.env.TERM }
    for (const name of Object.keys(saved)) delete process.env[name]
    Object.assign(process.env, env)
    try {
      const streams = {
        stdout: { write: (text: string) => (stdout += text), isTTY, columns: 70 },
        stderr: { write() {} },
      }
      assert.equal(await run(['preview', config, '--rows', '1', ...args], streams), 0)
    } finally {
      for (const [name, value] of Object.entries(saved)) {
        if (value === undefined) delete process.env[name]
        else process.env[name] = value
      }
    }
    return stdout
  }

  it('shows rows and their totals', async () => {
    const { code, stdout, stderr } = await tunesmithHere(['preview', config])
    assert.equal(code, 0, stderr)
    assert.equal(stdout.match(/^══ /gm)?.length, 3)
    assert.match(stdout, /⟦Answer·2\.‹<\|im_end\|>›⟧/)
    assert.match(stdout, /assistant +\d+ \(\d+\.\d %\), \d+ with loss/)
    assert.match(stdout, /user +\d+ \(\d+\.\d %\), 0 with loss/)
    assert.match(stdout, /rows +3\n/)
    assert.match(stdout, /format +messages, .+"messages".+chat\.jsonl/)
    assert.match(stdout, /chat template +chatml/)
    assert.match(stdout, /Template doctor: (ok|warning)\n {2}rendering +each of the 3 rows/)
    assert.match(stderr, /WARN_TEMPLATE_FALLBACK/)
  })

  it('is in colour on a terminal, unless told otherwise', async () => {
    const colored = async (args: string[], env: Record<string, string>, isTTY: boolean) =>
      (await onTerminal(args, env, isTTY)).includes('\x1b[')
    assert.equal(await colored([], {}, true), true)
    assert.equal(await colored([], {}, false), false)
    assert.equal(await colored([], { NO_COLOR: '1' }, true), false)
    assert.equal(await colored([], { NO_COLOR: '' }, true), true)
    assert.equal(await colored([], { TERM: 'dumb' }, true), false)
    assert.equal(await colored(['--color', 'never'], {}, true), false)
    assert.equal(await colored(['--color', 'always'], { NO_COLOR: '1' }, false), true)
    const [, , title] = (await onTerminal(['--color', 'never'], {}, true)).split('\n')
    assert.ok(title!.length >= 70)
  })

  it('writes a page, or JSON lines', async () => {
    const page = join(folder, 'page.html')
    const { stdout } = await tunesmithHere(['preview', config, '--rows', '2', '--html', page])
    assert.ok(stdout.includes(`2 examples written to ${page}`))
    assert.match(readFileSync(page, 'utf8'), /^<!doctype html>[\s\S]*chat\.jsonl:2/)
    const json = await tunesmithHere(['preview', config, '--rows', '4', '--json'])
    const lines = json.stdout
      .trimEnd()
      .split('\n')
      .map((line) => JSON.parse(line))
    assert.equal(lines.pop().summary.doctor.verdict, 'ok')
    assert.deepEqual(
      lines.map(({ source }) => source.line),
      [1, 2, 3, 4],
    )
    const trainer = new Trainer(JSON.parse(readFileSync(config, 'utf8')))
    const { examples } = await trainer.preview(4)
    assert.deepEqual(
      lines.map(({ ids, weights }) => [ids, weights]),
      examples.map(({ tokens: own }) => [own.map(({ id }) => id), own.map(({ weight }) => weight)]),
    )
    const nowhere = await tunesmithHere(['preview', config, '--html', join(folder, 'no', 'page.html')])
    assert.equal(nowhere.code, 1)
    assert.match(nowhere.stderr, /page\.html cannot be written.*ERR_OUTPUT_NOT_WRITABLE/)
  })

  it('ends as a failure where nothing of the rows could train', async () => {
    const train = join(folder, 'silent.jsonl')
    const silent = exchange('a', 'b').messages.map((message) => ({ ...message, weight: 0 }))
    writeFileSync(train, jsonl({ messages: silent }, exchange('a', 'b')))
    const set = ['--set', `data.train=${train}`, '--rows', '1']
    const { code, stdout, stderr } = await tunesmithHere(['preview', config, ...set])
    assert.equal(code, 1)
    assert.match(stdout, /Template doctor: error/)
    assert.match(stderr, /No row is left to train on: of 1 row, 1 without a token.*silent\.jsonl:1\) \[ERR_NOTHING_SUP/)
    const refusing = join(folder, 'refusing.jinja')
    writeFileSync(refusing, "{{ raise_exception('No') }}")
    const refused = ['--set', `chatTemplate=${refusing}`, '--set', 'data.onBadRow=skip', '--set', 'cache=false']
    for (const command of ['preview', 'plan']) {
      const all = await tunesmithHere([command, config, ...refused])
      assert.equal(all.code, 1)
      assert.match(all.stderr, /No row is left to train on: of \d rows, \d malformed .*No.*ERR_EMPTY_DATASET/)
    }
    assert.equal((await tunesmithHere(['preview', config, '--json', ...set])).code, 1)
  })

  it('says where the data has fewer rows than were asked for', async () => {
    const { stderr, code } = await tunesmithHere(['preview', config, '--rows', '100'])
    assert.equal(code, 0)
    assert.match(stderr, /The data has 9 rows; 100 were asked for \[WARN_FEW_ROWS\]/)
    const one = join(folder, 'one.jsonl')
    writeFileSync(one, jsonl(exchange('a', 'b')))
    const few = await tunesmithHere(['preview', config, '--set', `data.train=${one}`])
    assert.doesNotMatch(few.stderr, /WARN_FEW_ROWS/)
  })

  it('tells the tokens that dropping and cutting lost, and conversations that were split', async () => {
    const train = join(folder, 'mixed.jsonl')
    const turns = [...exchange('a', 'x|one').messages, ...exchange('b', 'y|two').messages]
    writeFileSync(
      train,
      jsonl({ messages: turns }, exchange('q', 'long '.repeat(40)), ...new Array(30).fill(exchange('a', 'b'))),
    )
    const template = join(folder, 'rewriting.jinja')
    writeFileSync(
      template,
      "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content if loop.last else m.content.split('|')[-1] }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
    )
    const set = ['--set', `data.train=${train}`, '--set', `chatTemplate=${template}`, '--set', 'cache=false']
    const split = /split +1 conversation, because the chat template renders earlier turns differently/
    for (const command of ['preview', 'plan']) {
      const dropping = await tunesmithHere([command, config, ...set, '--set', 'maxLength=40'])
      assert.equal(dropping.code, 0, dropping.stderr)
      assert.match(
        dropping.stdout,
        /dropped +1: longer than maxLength \(40 tokens\) \(.*mixed\.jsonl:2\)\n +\d+ tokens lost, \d+ of/,
      )
      assert.match(dropping.stdout, split)
      assert.match(
        dropping.stderr,
        /longer than maxLength \(40 tokens\), which lost \d+ tokens, \d+ of them with loss: /,
      )
      assert.match(
        dropping.stderr,
        /1 conversation became 2 examples, because .*mixed\.jsonl:1 \[WARN_HISTORY_REWRITE\]/,
      )
      const cut = ['--set', 'maxLength=40', '--set', 'onTooLong=truncate-right']
      const cutting = await tunesmithHere([command, config, ...set, ...cut])
      assert.match(cutting.stdout, /cut +1 row: \d+ tokens lost, \d+ of them with loss; 1 trained turn without a stop/)
    }
  })

  it('writes nothing to the output folder', async () => {
    await tunesmithHere(['preview', config])
    assert.throws(() => readFileSync(join(folder, 'out', 'metrics.jsonl')), /ENOENT/)
  })

  it('refuses wrong arguments', async () => {
    const wrong: [string[], RegExp][] = [
      [['--rows', '0'], /--rows must be a whole number above 0; found '0'/],
      [['--rows', 'many'], /found 'many'/],
      [['--color', 'red'], /--color is auto, always or never/],
      [['--json', '--html', 'x.html'], /exclude each other/],
    ]
    for (const [args, message] of wrong) {
      const { code, stderr } = await tunesmithHere(['preview', config, ...args])
      assert.equal(code, 2)
      assert.match(stderr, message)
    }
    const trainer = new Trainer(JSON.parse(readFileSync(config, 'utf8')))
    await assert.rejects(trainer.preview(0.5), failure('ERR_INVALID_OPTION', 'found 0.5'))
  })
})
