// Answers questions about package.json for the shell scripts beside it. No dependencies: it runs before any are there.
//
//   node package.js BUILD_DIR facts PATH…       a line `PATH=value` for each of them that has something: texts and
//                                               numbers as they are, `yes` for an object that is not empty;
//                                               exit status 1 and a sentence when package.json is no JSON object
//   node package.js satisfies VERSION RANGE     exit status 0 yes, 1 no, 2 when RANGE is no range
'use strict'
const fs = require('node:fs')
const path = require('node:path')

function load(dir) {
  const text = fs.readFileSync(path.join(dir, 'package.json'), 'utf8').replace(/^\ufeff/, '')
  const value = JSON.parse(text)
  if (value === null || typeof value !== 'object' || Array.isArray(value)) throw new Error('it is not an object')
  return value
}

function at(value, keys) {
  return keys.split('.').reduce((inner, key) => (inner && typeof inner === 'object' ? inner[key] : undefined), value)
}

// --- Version ranges as npm reads them: `||`, spaces for "and", hyphens, ^, ~, x, and the comparison signs.

const PARTIAL = /^v?=?\s*(\d+|[xX*])?(?:\.(\d+|[xX*]))?(?:\.(\d+|[xX*]))?(?:-[0-9A-Za-z.-]+)?(?:\+[0-9A-Za-z.-]+)?$/

// The numbers that are given: `1.2.x` is [1, 2].
function numbers(text) {
  const found = PARTIAL.exec(text)
  if (!found) throw new RangeError(text)
  const given = []
  for (const part of found.slice(1, 4)) {
    if (part === undefined || /[xX*]/.test(part)) break
    given.push(Number(part))
  }
  return given
}

const pad = (given) => [...given, 0, 0, 0].slice(0, 3)
const bump = (given, index) => pad([...given.slice(0, index), given[index] + 1])

function compare(a, b) {
  for (let i = 0; i < 3; i++) if (a[i] !== b[i]) return a[i] - b[i]
  return 0
}

// One comparator as [lowest, first above], either of which may be missing.
function bounds(sign, text) {
  const given = numbers(text)
  if (given.length === 0) {
    return sign === '<' || sign === '>' ? [[Infinity, 0, 0], null] : [null, null]
  }
  const low = pad(given)
  const next = bump(given, given.length - 1)
  switch (sign) {
    case '>=':
      return [low, null]
    case '>':
      return [next, null]
    case '<':
      return [null, low]
    case '<=':
      return [null, next]
    case '~':
    case '~>':
      return [low, bump(given, Math.min(1, given.length - 1))]
    case '^': {
      const first = given.findIndex((number) => number > 0)
      return [low, bump(given, first === -1 ? given.length - 1 : first)]
    }
    default:
      return [low, next]
  }
}

function satisfies(version, range) {
  const have = pad(numbers(version))
  const within = ([low, above]) => (!low || compare(have, low) >= 0) && (!above || compare(have, above) < 0)
  const alternatives = range.split('||').map((alternative) => {
    const text = alternative
      .trim()
      .replace(/(\S+)\s+-\s+(\S+)/g, '>=$1 <=$2')
      .replace(/(>=|<=|~>|>|<|=|~|\^)\s+/g, '$1')
    return text.split(/\s+/).map((word) => {
      const [, sign, rest] = /^(>=|<=|~>|>|<|=|~|\^)?(.*)$/.exec(word)
      return bounds(sign || '', rest)
    })
  })
  return alternatives.some((all) => all.every(within))
}

// One line, whatever it is.
function fact(value) {
  if (value === undefined || value === null || value === false) return ''
  if (typeof value === 'object') return Object.keys(value).length > 0 ? 'yes' : ''
  return String(value).replace(/\s+/g, ' ').trim()
}

function main([first, command, ...rest]) {
  if (first === 'satisfies') {
    try {
      return satisfies(command, rest[0]) ? 0 : 1
    } catch {
      return 2
    }
  }
  let value
  try {
    value = load(first)
  } catch (error) {
    console.log(error.message)
    return 1
  }
  for (const keys of rest) {
    const found = fact(at(value, keys))
    if (found) console.log(`${keys}=${found}`)
  }
  return 0
}

process.exitCode = main(process.argv.slice(2))
