// Asks with undici, many requests on one connection: `undici_calls.js URL`.
const assert = require('node:assert')
const { Client, fetch } = require('undici')

const url = process.argv[2]

// Requests are sent before answers have come (RFC 9112 §9.3.2), and answers come in order.
async function pipelined() {
  let connections = 0
  const client = new Client(url, { pipelining: 10 })
  client.on('connect', () => connections++)
  const ask = async (n) => {
    const { statusCode, body } = await client.request({ path: `/request?n=${n}`, method: 'GET' })
    assert.strictEqual(statusCode, 200)
    assert.strictEqual((await body.json()).query, `n=${n}`)
  }
  await Promise.all(Array.from({ length: 300 }, (_, n) => ask(n)))
  await new Promise((resolve) => setTimeout(resolve, 1500))
  await ask(300)
  assert.strictEqual(connections, 1)
  await client.close()
}

async function bodies() {
  const client = new Client(url)
  async function * parts() {
    for (let n = 0; n < 100; n++) yield Buffer.alloc(10_000)
  }
  const sent = await client.request({ path: '/request', method: 'POST', body: parts() })
  assert.strictEqual((await sent.body.json()).length, 1_000_000)
  // A client that loses interest in one answer has the next one on another connection.
  const { body } = await client.request({ path: '/download?bytes=50000000', method: 'GET' })
  body.on('error', () => {}).destroy()
  const next = await client.request({ path: '/', method: 'GET' })
  assert.match(await next.body.text(), /version=/)
  await client.close()
}

async function fetched() {
  const answer = await fetch(`${url}/request`, { method: 'POST', body: new URLSearchParams({ a: 'ä' }) })
  const told = await answer.json()
  assert.ok(told.headers.some(([name, value]) => name === 'content-type' && value.startsWith('application/x-www-form-urlencoded')))
  const events = await (await fetch(`${url}/events?count=3&pause=0.01`)).text()
  assert.strictEqual(events, 'data: event 0\n\ndata: event 1\n\ndata: event 2\n\n')
}

pipelined().then(bodies).then(fetched).then(() => process.exit(0), (error) => {
  console.error(error)
  process.exit(1)
})
