import { useEffect, useReducer, useRef, useState } from "react";
import { subscribe, type Message, type Options, type State } from "./caddy-sse.js";

/**
 * Makes a value of the messages of a topic, or of several: `reduce` adds each message to what there is, which begins
 * with `initial`. It returns the value and the state of the subscription. The options other than `topics` and the
 * functions count as they were first, for as long as url and topics stay the same.
 */
export function useTopic<Value>(
  url: string, topics: string | string[], reduce: (value: Value, message: Message) => Value, initial: Value,
  options: Omit<Options, "topics"> = {},
): [Value, State] {
  const [value, add] = useReducer(reduce, initial);
  const what = JSON.stringify([url, topics]);
  const [told, tell] = useState<{ what: string; state: State }>();
  const newest = useRef(options);
  newest.current = options;
  useEffect(() => {
    const { token } = newest.current;
    const subscription = subscribe(url, {
      ...newest.current,
      topics,
      token: typeof token === "function" ? (renew) => (newest.current.token as Extract<typeof token, Function>)(renew) : token,
      event(message) {
        add(message);
        newest.current.event?.(message);
      },
      gap: (reason) => newest.current.gap?.(reason),
      state(next, why) {
        tell({ what, state: next });
        newest.current.state?.(next, why);
      },
    });
    return () => subscription.close();
  }, [what]);
  return [value, told?.what === what ? told.state : "connecting"];
}
