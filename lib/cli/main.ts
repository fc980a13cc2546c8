#!/usr/bin/env node
/** The `tunesmith` executable. */
import { run } from './run.ts'

const args = process.argv.slice(2)
// A reader that has seen enough (`tunesmith ... | head`) closes the pipe: that is no error of ours. Training goes on: its
// work is the checkpoint.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code !== 'EPIPE') throw error
  if (args[0] !== 'train') process.exit(0)
})
process.exitCode = await run(args, process)
