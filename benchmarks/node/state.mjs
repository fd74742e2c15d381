// The state service of @pikku/redis, driven by the benchmarks: one job in argv[2], one answer on stdout.
import { readFileSync } from 'node:fs'
import { RedisWorkflowRunService, RedisWorkflowService } from '@pikku/redis'
import Redis from 'ioredis'

const STEPS = 10
const OPTIONS = { retries: 5, retryDelay: 'exponential' }
const job = JSON.parse(process.argv[2])
const payloads = JSON.parse(readFileSync(job.payloads, 'utf8'))
let used = 0
const payload = () => payloads[used++ % payloads.length]

function connect(url, pipelining = false) {
  const options = { enableAutoPipelining: pipelining }
  return url.startsWith('unix://') ? new Redis(url.slice('unix://'.length), options) : new Redis(url, options)
}

// One run from its creation to its end; `on` gets the id and each step's, where somebody wants them.
async function lifecycle(service, on = { step() {}, run() {} }) {
  const id = await service.createRun('bench', payload(), false, '', { type: 'bench' })
  on.run(id)
  for (let number = 0; number < STEPS; number++) {
    const step = await service.insertStepState(id, `step ${number}`, 'noop', payload(), OPTIONS)
    await service.setStepScheduled(step.stepId)
    await service.setStepRunning(step.stepId)
    await service.setStepResult(step.stepId, payload())
    on.step(step.stepId)
  }
  await service.updateRunStatus(id, 'completed', payload())
  return id
}

async function many(service, runs, inFlight) {
  const ids = []
  let left = runs
  const lane = async () => {
    while (left-- > 0) ids.push(await lifecycle(service))
  }
  await Promise.all(Array.from({ length: inFlight }, lane))
  return ids
}

async function serverOf(redis) {
  const text = (await redis.info('stats')) + (await redis.info('cpu'))
  const number = name => Number(new RegExp(`^${name}:([\\d.]+)`, 'm').exec(text)[1])
  const cpuUs = (number('used_cpu_user') + number('used_cpu_sys')) * 1e6
  return { commands: number('total_commands_processed'), cpuUs }
}

// Full lifecycles, so many in flight, on one connection.
async function lifecycles() {
  const redis = connect(job.url, job.pipelining)
  const service = new RedisWorkflowService(redis, job.prefix)
  await service.init()
  await many(service, job.warmUp, job.inFlight)
  const before = await serverOf(redis)
  const cpu = process.cpuUsage()
  const began = performance.now()
  const ids = await many(service, job.runs, job.inFlight)
  const seconds = (performance.now() - began) / 1_000
  const spent = process.cpuUsage(cpu)
  const after = await serverOf(redis)
  const commands = after.commands - before.commands - 2
  const serverUs = after.cpuUs - before.cpuUs
  let steps = 0
  for (const id of ids.slice(0, job.looked)) {
    const status = await service.getRunStatus(id)
    if (status.status !== 'completed') throw new Error(`run ${id} is ${status.status}`)
    steps += status.steps.filter(step => step.status === 'succeeded').length
  }
  await redis.quit()
  return { seconds, cpuUs: spent.user + spent.system, serverUs, commands: commands / job.runs, ids, steps }
}

// Each read, `job.times[place][name]` times, a block in one place after one in the other, for what was
// just asked answers faster. In milliseconds.
const BLOCK = 10
async function reads() {
  const waits = {}
  const places = Object.entries(job.places).map(([place, { url, ids, deletable }]) => {
    const redis = connect(url)
    const service = new RedisWorkflowService(redis, job.prefix)
    const runs = new RedisWorkflowRunService(redis, job.prefix)
    let turn = 0
    const next = () => ids[turn++ % ids.length]
    waits[place] = {}
    return { place, redis, calls: {
      get_run: () => service.getRun(next()),
      get_run_history: () => service.getRunHistory(next()),
      get_run_status: () => service.getRunStatus(next()),
      list_runs: () => runs.listRuns({ limit: 50 }),
      delete_run: () => runs.deleteRun(deletable.pop()),
    } }
  })
  for (const { redis, calls } of places) {
    await calls.get_run()
    await redis.ping()
  }
  for (const name of job.names) {
    const most = Math.max(...places.map(({ place }) => job.times[place][name]))
    for (let first = 0; first < most; first += BLOCK) {
      for (const { place, calls } of places) {
        for (let time = first; time < Math.min(first + BLOCK, job.times[place][name]); time++) {
          const began = performance.now()
          const answer = await calls[name]()
          ;(waits[place][name] ??= []).push(performance.now() - began)
          if (!answer || answer.length === 0) throw new Error(`${name} found nothing`)
        }
      }
    }
  }
  for (const { redis } of places) await redis.quit()
  return { waits }
}

const answer = await { lifecycles, reads }[job.mode]()
process.stdout.write(`${JSON.stringify(answer)}\n`)
