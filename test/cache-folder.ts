// Runs in tests keep their prepared data in a folder that goes with the process, not in that of the user.
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

const folder = mkdtempSync(join(tmpdir(), 'tunesmith-test-cache-'))
process.env.XDG_CACHE_HOME = folder
process.on('exit', () => rmSync(folder, { recursive: true, force: true }))
