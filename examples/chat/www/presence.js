// Who is in the room. Caddy says who is there when it is asked, and tells who comes and goes.

export class Presence {
  clients = 0; // in the room, with a name or without
  infos = new Set(); // what those with a name have said of themselves

  constructor({ url, changed }) {
    Object.assign(this, { url, changed });
  }

  // ask is called whenever the page has come to the room. What an event tells later may be in the answer already,
  // which makes no difference to a set. An event that comes while we ask may not be in it: then we ask again.
  async ask() {
    this.missed = false;
    const mine = (this.asking = {});
    try {
      const answer = await fetch(this.url, { signal: AbortSignal.timeout(5000) });
      if (!answer.ok || mine !== this.asking) return;
      const { clients, users } = await answer.json();
      if (mine !== this.asking) return;
      this.clients = clients;
      this.infos = new Set(users.map(({ info }) => info));
      this.changed();
    } catch {
      return; // the stream notices, too
    } finally {
      if (mine === this.asking) this.asking = undefined;
    }
    if (this.missed) this.ask();
  }

  // heard takes a presence event.
  heard({ clients, joined, left, more }) {
    this.clients = clients;
    for (const { info } of left) this.infos.delete(info);
    for (const { info } of joined) this.infos.add(info);
    this.missed = true;
    if (more) this.ask(); // so many that an event does not name them all
    this.changed();
  }

  // people returns the names by ID. An info is both, with a space between them; anybody can make one up.
  people() {
    const people = new Map();
    for (const info of this.infos) {
      const [id, ...name] = info.split(" ");
      people.set(id, name.join(" ").slice(0, 30) || "?");
    }
    return people;
  }

  // nameless returns how many clients have not said who they are.
  nameless() {
    return Math.max(0, this.clients - this.infos.size);
  }
}
