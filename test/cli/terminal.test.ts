import assert from 'node:assert/strict'
import { hasColors } from '../../lib/cli/terminal.ts'

describe('colours on a terminal', () => {
  const { NO_COLOR, TERM } = process.env
  const set = (name: string, value: string | undefined) => {
    if (value === undefined) delete process.env[name]
    else process.env[name] = value
  }
  after(() => {
    set('NO_COLOR', NO_COLOR)
    set('TERM', TERM)
  })

  it('are there unless NO_COLOR is set to something, or the terminal cannot', () => {
    const cases: [boolean, string | undefined, string, boolean][] = [
      [true, undefined, 'xterm', true],
      [true, '', 'xterm', true],
      [true, '0', 'xterm', false],
      [true, undefined, 'dumb', false],
      [false, undefined, 'xterm', false],
    ]
    for (const [isTTY, noColor, term, expected] of cases) {
      set('NO_COLOR', noColor)
      set('TERM', term)
      assert.equal(hasColors({ isTTY, write: () => true }), expected)
    }
  })
})
