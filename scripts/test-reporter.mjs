// Mocha's spec reporter, which also writes the titles of the skipped tests to $TUNESMITH_SKIPPED, one per line.
import { writeFileSync } from 'node:fs'
import Mocha from 'mocha'

export default class TestReporter extends Mocha.reporters.Spec {
  constructor(runner, options) {
    super(runner, options)
    const skipped = []
    runner.on('pending', (test) => skipped.push(`${test.fullTitle().replaceAll('\n', ' ')}\n`))
    runner.once('end', () => {
      if (process.env.TUNESMITH_SKIPPED) writeFileSync(process.env.TUNESMITH_SKIPPED, skipped.join(''))
    })
  }
}
