#!/usr/bin/env node
/** The `tunesmith` executable. */
import { run } from './run.ts'

// A reader that has seen enough (`tunesmith ... | head`) closes the pipe: that is no error of ours.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code !== 'EPIPE') throw error
  process.exit(0)
})
process.exitCode = await run(process.argv.slice(2), process)
