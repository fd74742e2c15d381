// Answers calls of the npm packages of the original: one JSON object per line in, one per line out.
//
// in:  {id, url, prefix, target, method, args}   out: {id, result} or {id, error: {name, message, code}}
// target: service (RedisWorkflowService), runs (RedisWorkflowRunService), engine (steps of @pikku/core),
// locks (held until they are released). In arguments {"$undefined": true} and {"$error": {...}} stand for
// what JSON has no word for.

import { createInterface } from 'node:readline'
import { Redis } from 'ioredis'
import { RedisWorkflowRunService, RedisWorkflowService } from '@pikku/redis'
import { setSingletonServices } from '@pikku/core/ecosystem'

const queued = []
setSingletonServices({
  logger: { debug() {}, info() {}, warn() {}, error() {} },
  queueService: { add: async (queue, data) => void queued.push({ queue, data }) },
})

const opened = new Map()

function open(url, prefix) {
  const key = `${url} ${prefix}`
  if (!opened.has(key)) {
    const redis = url.startsWith('unix://') ? new Redis(url.slice(7)) : new Redis(url)
    opened.set(key, {
      redis,
      service: new RedisWorkflowService(redis, prefix, { wireQueues: false }),
      runs: new RedisWorkflowRunService(redis, prefix),
      held: new Map(),
    })
  }
  return opened.get(key)
}

// The functions that steps of the tests name.
const functions = {
  echo: (data, wire) => ({ data, ...wire.workflowStep }),
  nothing: () => undefined,
  refuse: (data) => {
    throw Object.assign(new Error(`refused ${data}`), { code: 'REFUSED' })
  },
}

const rpc = { rpcWithWire: async (name, data, wire) => functions[name](data, wire) }

const engine = {
  executeWorkflowStep: ({ service }, [runId, stepName, rpcName, data]) =>
    service.executeWorkflowStep(runId, stepName, rpcName, data, rpc),
  queued: async () => queued.splice(0),
}

// A lock is held from `run` or `step` on until `release` with the same name.
function hold({ held }, name, lock) {
  return new Promise((taken, refused) => {
    lock(() => new Promise((release) => { held.set(name, { release }); taken(true) }))
      .then(() => held.get(name)?.released?.())
      .catch(refused)
  })
}

const locks = {
  run: (at, [runId]) => hold(at, runId, (body) => at.service.withRunLock(runId, body)),
  step: (at, [runId, name]) => hold(at, `${runId}:${name}`, (body) => at.service.withStepLock(runId, name, body)),
  release: ({ held }, [name]) => new Promise((released) => {
    const lock = held.get(name)
    lock.released = () => { held.delete(name); released(true) }
    lock.release()
  }),
}

async function close(url, prefix) {
  await open(url, prefix).redis.quit()
  opened.delete(`${url} ${prefix}`)
}

function revive(value) {
  if (value?.$undefined) return undefined
  if (value?.$error) return Object.assign(new Error(value.$error.message), value.$error)
  return value
}

async function answer({ url, prefix, target, method, args }) {
  if (target === 'close') return close(url, prefix)
  const at = open(url, prefix)
  const given = args.map(revive)
  if (target === 'engine') return engine[method](at, given)
  if (target === 'locks') return locks[method](at, given)
  return at[target][method](...given)
}

const say = (line) => process.stdout.write(`${JSON.stringify(line)}\n`)

createInterface({ input: process.stdin }).on('line', async (line) => {
  const call = JSON.parse(line)
  try {
    say({ id: call.id, result: (await answer(call)) ?? null })
  } catch (error) {
    say({ id: call.id, error: { name: error?.name, message: String(error?.message ?? error), code: error?.code } })
  }
}).on('close', () => process.exit(0))
