import assert from 'node:assert/strict'
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { builtinModules } from 'node:module'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { schema } from '../lib/trainer/option-schema.ts'

const root = fileURLToPath(new URL('..', import.meta.url))
const read = (path: string) => readFileSync(join(root, path), 'utf8')
const pkg = JSON.parse(read('package.json'))
const lock = JSON.parse(read('package-lock.json'))

interface Locked {
  optionalDependencies?: Record<string, string>
}

describe('package.json', () => {
  it('runs nothing on installation, which npm 12 would block', () => {
    for (const script of ['preinstall', 'install', 'postinstall', 'prepare'])
      assert.equal(pkg.scripts[script], undefined)
    // Without this npm runs `node-gyp rebuild` wherever it sees a binding.gyp.
    assert.equal(pkg.gypfile, false)
    assert.ok(existsSync(join(root, 'binding.gyp')))
  })

  it('has types first in every export', () => {
    for (const target of Object.values(pkg.exports['.'])) assert.equal(Object.keys(target as object)[0], 'types')
  })

  it('depends only on what its users need at run time', () => {
    const needed = new Set(externalImports('lib', /\.ts$/, (name) => !name.endsWith('.d.ts')))
    needed.delete('typed-emitter') // types only, bundled into dist
    assert.deepEqual(Object.keys(pkg.dependencies).sort(), [...needed].sort())
  })

  it('agrees with the lock file, which names no download addresses', () => {
    assert.deepEqual(lock.packages[''].dependencies, pkg.dependencies)
    assert.deepEqual(lock.packages[''].devDependencies, pkg.devDependencies)
    assert.equal(lock.version, pkg.version)
    assert.ok(!read('package-lock.json').includes('"resolved"'))
  })

  it('is locked for every platform, without which npm ci refuses', () => {
    for (const [path, { optionalDependencies = {} }] of Object.entries<Locked>(lock.packages))
      for (const name of Object.keys(optionalDependencies))
        assert.ok(lock.packages[`node_modules/${name}`], `${path}: ${name}`)
  })

  it('ships what building from source needs, and no tests', () => {
    for (const path of ['dist', 'prebuilds', 'native', 'CMakeLists.txt', 'binding.gyp', 'scripts/build-native.mjs'])
      assert.ok(pkg.files.includes(path), path)
    assert.ok(pkg.files.includes('!native/test'))
    assert.ok(!pkg.files.some((path: string) => /^(test|bench|docs|node_modules)/.test(path)))
  })

  it('has the two commands of the README', () => {
    const readme = read('README.md')
    for (const script of ['demo', 'test']) {
      assert.ok(readme.includes(`npm run setup && npm ${script === 'test' ? '' : 'run '}${script}`), script)
      assert.ok(pkg.scripts[script])
    }
    assert.ok(pkg.scripts.setup)
  })
})

describe('the documents', () => {
  it('explain every option', () => {
    const names = Object.entries(schema.shape).flatMap(([key, part]) =>
      key === 'data' ? Object.keys((part as typeof schema.shape.data).shape).map((name) => `data.${name}`) : [key],
    )
    const rows = [...read('README.md').matchAll(/^\| `([\w.]+)` \| .* \| .* \|$/gm)].map((row) => row[1]!)
    assert.deepEqual(rows.slice(0, names.length).sort(), names.sort())
  })

  it('list every error code, and none that is gone', () => {
    const list = read('lib/errors.ts')
    const raised = new Set<string>()
    for (const folder of ['lib', 'native', 'cuda'])
      for (const name of readdirSync(join(root, folder), { recursive: true, encoding: 'utf8' })) {
        // cuda/host runs kernels for tests, and its errors are for them.
        if (!/\.(ts|cc|cu|h)$/.test(name) || name === 'errors.ts' || /^(test|host)/.test(name)) continue
        for (const [, code] of read(join(folder, name)).matchAll(/['"](ERR_[A-Z0-9_]+)['"]/g)) raised.add(code!)
      }
    const listed = new Set(list.match(/ERR_[A-Z0-9_]+/g))
    assert.deepEqual(
      [...raised].filter((code) => !listed.has(code)),
      [],
      'not in lib/errors.ts',
    )
    assert.deepEqual(
      [...listed].filter((code) => !raised.has(code)),
      [],
      'raised nowhere',
    )
  })
})

describe('the build', () => {
  it('imports nothing that its users do not have', () => {
    assert.ok(existsSync(join(root, 'dist/index.d.ts')), 'dist is missing: npm run setup')
    const allowed = new Set(Object.keys(pkg.dependencies))
    for (const name of externalImports('dist', /\.(js|d\.ts)$/, () => true)) assert.ok(allowed.has(name), name)
  })

  it('carries the types of its emitter', () => {
    assert.match(read('dist/trainer/events.d.ts'), /from '\.\.\/vendor\/typed-emitter\.js'/)
    assert.match(read('dist/vendor/typed-emitter.d.ts'), /MIT License[\s\S]+export default TypedEventEmitter/)
  })

  it('has an executable command line', () => {
    assert.match(read(pkg.bin.tunesmith), /^#!\/usr\/bin\/env node\n/)
  })
})

/** Names of the packages, other than Node's own, that files under `folder` import or require. */
function externalImports(folder: string, kind: RegExp, accept: (name: string) => boolean): string[] {
  const found = new Set<string>()
  for (const name of readdirSync(join(root, folder), { recursive: true, encoding: 'utf8' })) {
    if (!kind.test(name) || !accept(name)) continue
    const code = read(join(folder, name))
      .replace(/\/\*[\s\S]*?\*\//g, '')
      .replace(/^\s*\/\/.*$/gm, '')
    for (const [, specifier] of code.matchAll(
      /(?:from|import|require)\s*\(?\s*['"]([@\w][\w.:/@-]*|\.[^'"\s]*)['"]/g,
    )) {
      if (specifier!.startsWith('.') || specifier!.startsWith('node:') || builtinModules.includes(specifier!)) continue
      found.add(
        specifier!
          .split('/')
          .slice(0, specifier!.startsWith('@') ? 2 : 1)
          .join('/'),
      )
    }
  }
  return [...found]
}
