#!/usr/bin/env node
// After tsc: makes dist stand on its own. typed-emitter is types only, and depending on it would install rxjs (12 MB) for
// everyone who uses this package, so its declaration goes into dist and the imports in our declarations point there.
// It becomes a declaration of an ES module: tsc saw that of a CommonJS one and wrote `TypedEmitter.default`, which not
// every consumer's module resolution understands.
import { chmodSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { dirname, join, relative } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = dirname(dirname(fileURLToPath(import.meta.url)))
const dist = join(root, 'dist')
const source = join(root, 'node_modules', 'typed-emitter')
const vendored = join(dist, 'vendor', 'typed-emitter.d.ts')

mkdirSync(dirname(vendored), { recursive: true })
const licence = readFileSync(join(source, 'LICENSE'), 'utf8').trim()
const declaration = readFileSync(join(source, 'index.d.ts'), 'utf8')
writeFileSync(
  vendored,
  `/* typed-emitter (https://github.com/andywer/typed-emitter)\n\n${licence}\n*/\n\n${declaration}`,
)

for (const name of readdirSync(dist, { recursive: true })) {
  if (!name.endsWith('.d.ts')) continue
  const path = join(dist, name)
  const text = readFileSync(path, 'utf8')
  const target = relative(dirname(path), vendored)
    .replaceAll('\\', '/')
    .replace(/\.d\.ts$/, '.js')
  const changed = text
    .replaceAll(/(['"])typed-emitter\1/g, `'${target.startsWith('.') ? target : `./${target}`}'`)
    .replaceAll('TypedEmitter.default<', 'TypedEmitter<')
  if (changed !== text) writeFileSync(path, changed)
}

chmodSync(join(dist, 'cli', 'main.js'), 0o755)
