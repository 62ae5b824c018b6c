// What the official JavaScript client sees of pulls, pushes and creates: one line of JSON on standard output.
import { Ollama } from 'ollama'

const [host, registry] = process.argv.slice(2)
const client = new Ollama({ host })
const tiny = `${registry}/clients/tiny`
const secure = (name) => name.replace('http://', '')

async function collect(steps) {
  const found = []
  for await (const step of steps) found.push(step)
  return found
}

async function failure(work) {
  try {
    await work()
  } catch (error) {
    return error.message
  }
  return 'no error'
}

async function aborted() {
  const steps = await client.pull({ model: `${registry}/clients/slow`, insecure: true, stream: true })
  try {
    for await (const step of steps) if (step.completed) steps.abort()
  } catch (error) {
    return error.name
  }
  return 'no error'
}

const seen = {}
seen.streamed = await collect(await client.pull({ model: tiny, insecure: true, stream: true }))
seen.pulled = await client.pull({ model: tiny, insecure: true })
seen.names = (await client.list()).models.map((model) => model.name)
seen.unknown = await failure(() => client.pull({ model: `${registry}/clients/nothing`, insecure: true }))
seen.unknownStreamed = await failure(async () =>
  collect(await client.pull({ model: `${registry}/clients/nothing`, insecure: true, stream: true })),
)
seen.badName = await failure(() => client.pull({ model: 'a b' }))
seen.created = await collect(
  await client.create({ model: 'heir', from: secure(tiny), system: 'Be brief.', stream: true }),
)
await client.copy({ source: secure(tiny), destination: secure(`${registry}/clients/javascript`) })
const target = { model: `${registry}/clients/javascript`, insecure: true }
seen.pushed = await collect(await client.push({ ...target, stream: true }))
seen.pushedAgain = await client.push(target)
seen.pushedNothing = await failure(() => client.push({ model: 'me/nope' }))
seen.aborted = await aborted()
console.log(JSON.stringify(seen))
