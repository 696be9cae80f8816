// What holds for some topics, and who is at one of them.

import { $, ask, element, formats, query, setText, show } from "./parts.js";

export function showPolicies(hub) {
  const policies = hub.policies ?? [];
  $("policies").hidden = policies.length === 0;
  show(
    $("policies"),
    policies,
    (policy) => policy.topic,
    (policy) => {
      const item = element("li", "");
      item.append(element("code", "", policy.topic), element("span", ""));
      return item;
    },
    (item, policy) => {
      const rules = ["history", "conflate", "presence"].filter((name) => policy[name]).map((name) => `${name} ${policy[name]}`);
      setText(item.lastElementChild, `: ${rules.join(", ") || "as the hub has it"}`);
    },
  );
}

// showPresence asks once: the dialog shows who was there when it was opened.
export async function showPresence(path, topic) {
  setText($("presence-topic"), topic);
  setText($("presence-clients"), "Asking…");
  $("presence-users").replaceChildren();
  $("presence").showModal();
  $("presence-close").focus();
  try {
    const { clients, users, more } = await ask(path + query({ topic }));
    if ($("presence-topic").textContent !== topic) return;
    const listed = users.length ? `; ${formats.count(users.length)}${more ? " and more" : ""} of them with a name:` : ".";
    setText($("presence-clients"), `${formats.count(clients)} ${clients === 1 ? "client" : "clients"}${listed}`);
    $("presence-users").replaceChildren(...users.map(makePerson));
  } catch (err) {
    setText($("presence-clients"), err.message);
  }
  $("presence-users").hidden = !$("presence-users").childElementCount;
}

function makePerson({ user, info }) {
  const item = element("li", "");
  item.append(user ? element("code", "", user) : element("span", "muted", "a guest"));
  if (info) item.append(element("span", "", ` ${info}`));
  return item;
}

$("presence-close").addEventListener("click", () => $("presence").close());
