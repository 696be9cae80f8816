// Who is in the room. Everybody says so now and then, in messages that nobody keeps, and the answer to
// such a message counts the clients that it was sent to.

const every = 10_000;
const patience = 3000; // for those who are asked whether they are here

export class Presence {
  people = new Map(); // by ID: their name, and when they were heard last
  count = 0; // clients in the room, with a name or without

  constructor({ url, me, changed }) {
    Object.assign(this, { url, me, changed });
  }

  // start is called whenever the page has come to the room.
  start() {
    clearInterval(this.ticker);
    this.ticker = setInterval(() => this.say({}), every);
    return this.rollCall();
  }

  stop() {
    clearInterval(this.ticker);
    clearTimeout(this.roll);
    this.roll = undefined;
    // A page that is going away can still send a beacon.
    navigator.sendBeacon(this.url, JSON.stringify({ id: this.me().id, gone: true }));
  }

  // rollCall asks who is here and forgets who does not answer.
  rollCall() {
    if (this.roll) return undefined;
    const asked = performance.now();
    this.roll = setTimeout(() => {
      this.roll = undefined;
      for (const [id, person] of this.people) if (person.heard < asked) this.people.delete(id);
      this.changed();
    }, patience);
    return this.say({ ask: true });
  }

  async say(more) {
    const body = JSON.stringify({ ...this.me(), ...more });
    try {
      const answer = await fetch(this.url, { method: "POST", body, signal: AbortSignal.timeout(5000) });
      if (!answer.ok) return;
      this.count = (await answer.json()).receivers;
    } catch {
      return; // the stream notices, too
    }
    if (this.count < this.people.size) this.rollCall(); // somebody left without a word
    this.changed();
  }

  // heard takes such a message of anybody, us included.
  heard({ id, name, ask, gone }) {
    const before = this.people.size;
    if (gone) this.people.delete(id);
    else this.people.set(id, { name, heard: performance.now() });
    const ours = id === this.me().id;
    // Whoever comes is told of everybody, and whoever stays counts anew. Not all at once.
    if (!ours && (ask || gone || this.people.size !== before)) setTimeout(() => this.say({}), Math.random() * 300);
    this.changed();
  }
}
