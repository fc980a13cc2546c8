import assert from 'node:assert/strict'
import { JinjaTemplate } from '../../lib/chat/jinja.ts'
import { run } from '../../scripts/fuzz/rendering.ts'

const NOW = new Date(2026, 0, 5)
const render = (source: string, variables: Record<string, unknown> = {}) =>
  new JinjaTemplate(source, NOW).render(variables)

/** A list of lists of lists... */
function nested(depth: number): unknown {
  let value: unknown = []
  for (let i = 0; i < depth; i++) value = [value]
  return value
}

describe('templates out of bounds', () => {
  const LOOP = '{% for a in range(100000) %}'
  const cases: [string, string, RegExp, Record<string, unknown>?][] = [
    ['endless loops', `${LOOP}${LOOP}{{ a }}{% endfor %}{% endfor %}`, /more than 5000000 steps/],
    [
      'endless loops that write nothing',
      `${LOOP}${LOOP}{% set x = 1 %}{% endfor %}{% endfor %}`,
      /more than 5000000 steps/,
    ],
    ['endless loops with nothing inside', `${LOOP}${LOOP}{% endfor %}{% endfor %}`, /more than 5000000 steps/],
    [
      'filters of endless loops',
      `${LOOP}{% for b in range(100000) if false %}{% endfor %}{% endfor %}`,
      /more than 5000000 steps/,
    ],
    ['macros that call themselves', '{% macro f(x) %}{{ f(x) }}{% endmacro %}{{ f(1) }}', /more than 200 deep/],
    [
      'macros that call themselves twice',
      '{% macro f(x) %}{% if x < 40 %}{{ f(x + 1) }}{{ f(x + 1) }}{% endif %}{% endmacro %}{{ f(1) }}',
      /steps/,
    ],
    ['long ranges', '{% for a in range(1000000000) %}{% endfor %}', /up to 100000 are allowed/],
    [
      'text that doubles',
      "{% set ns = namespace(x='ab') %}{% for a in range(60) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
      /more than \d+ (elements|characters)/,
    ],
    [
      'sums of text that double',
      "{% set ns = namespace(x='ab') %}{% for a in range(60) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
      /more than \d+ (elements|characters)/,
    ],
    [
      'lists that double',
      '{% set ns = namespace(x=[1]) %}{% for a in range(60) %}{% set ns.x = ns.x + ns.x %}{% endfor %}',
      /more than \d+ (elements|characters)/,
    ],
    ['multiplied text', "{{ 'x' * 1000000000 }}", /more than \d+ (elements|characters)/],
    ['multiplied lists', '{{ ([1] * 1000000000) | length }}', /more than \d+ (elements|characters)/],
    [
      'replacements that explode',
      "{{ ('x' * 100000).replace('x', 'y' * 100000) }}",
      /more than \d+ (elements|characters)/,
    ],
    [
      'replacements of nothing',
      "{{ ('x' * 100000).replace('', 'y' * 100000) }}",
      /more than \d+ (elements|characters)/,
    ],
    ['joined text', "{{ range(100000) | join('x' * 100000) }}", /more than \d+ (elements|characters)/],
    ['padded text', "{{ 'x'.ljust(1000000000) }}", /more than \d+ (elements|characters)/],
    ['centred text', "{{ 'x' | center(1000000000) }}", /more than \d+ (elements|characters)/],
    ['indented text', "{{ ('a\\n' * 100000) | indent(100000) }}", /more than \d+ (elements|characters)/],
    ['indentation', '{{ [1] | tojson(indent=1000000000) }}', /more than \d+ (elements|characters)/],
    [
      'numbers',
      '{% set ns = namespace(x=3) %}{% for a in range(60) %}{% set ns.x = ns.x * ns.x %}{% endfor %}',
      /beyond bounds/,
    ],
    ['powers', '{{ 10 ** 10000 }}', /beyond bounds/],
    ['output', "{% for a in range(100000) %}{{ 'x' * 100000 }}{% endfor %}", /more than \d+ (elements|characters)/],
    ['deep data', '{{ x | tojson }}', /nested too deeply/, { x: nested(100_000) }],
    ['deep data as text', '{{ x }}', /nested too deeply/, { x: nested(100_000) }],
    ['deep data that is compared', '{{ x == y }}', /nested too deeply/, { x: nested(100_000), y: nested(100_000) }],
    [
      'lists of lists that double',
      '{% set ns = namespace(x=[1]) %}{% for a in range(60) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x | tojson }}',
      /more than \d+ elements/,
    ],
    [
      'lists of lists that double as text',
      '{% set ns = namespace(x=[1]) %}{% for a in range(60) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x }}',
      /more than \d+ elements/,
    ],
    [
      'lists that are kept',
      '{% set ns = namespace(x=[1]) %}{% for a in range(100000) %}{% set ns.x = [ns.x, [1] * 100000] %}{% endfor %}',
      /more than \d+ elements/,
    ],
    [
      'text that is kept',
      "{% set ns = namespace(x=[1]) %}{% set s = 'x' * 1000000 %}{% for a in range(100000) %}{% set ns.x = [ns.x, s.upper()] %}{% endfor %}",
      /more than \d+ characters/,
    ],
    ['batches of nothing', '{{ [1] | batch(0) | list }}', /at least 1/],
    ['slices of nothing', '{{ [1] | slice(1000000000) | list }}', /more than \d+ (elements|characters)/],
  ]
  for (const [name, source, message, variables] of cases) {
    it(`${name} end in an error`, () => {
      assert.throws(
        () => render(source, variables),
        (error: Error) => {
          assert.match(error.message, message)
          return true
        },
      )
    }).timeout(20_000)
  }

  it('deep templates do not parse', () => {
    const depth = 20_000
    assert.throws(() => render(`{{ ${'('.repeat(depth)}1${')'.repeat(depth)} }}`), /nested too deeply/)
    assert.throws(() => render(`${'{% if true %}'.repeat(depth)}${'{% endif %}'.repeat(depth)}`), /nested too deeply/)
  })

  it('are bounded as a macro is left, too', () => {
    const failing = '{% macro f(x) %}{{ nothing.x }}{% endmacro %}{{ f(1) }}'
    const template = new JinjaTemplate(failing, NOW)
    for (let i = 0; i < 300; i++) assert.throws(() => template.render({}), /'nothing' is undefined/)
  })
})

describe('rendering of random conversations', () => {
  it('ends in text or one clear error, for every template', async () => {
    const { renderings, refused } = await run(400, 1)
    assert.ok(renderings > 80 && refused > 80, `${renderings} rendered, ${refused} refused`)
  }).timeout(120_000)
})
