import { type Message, type Options, type State } from "./caddy-sse.js";
/**
 * Makes a value of the messages of a topic, or of several: `reduce` adds each message to what there is, which begins
 * with `initial`. It returns the value and the state of the subscription. The options other than `topics` and the
 * functions count as they were first, for as long as url and topics stay the same.
 */
export declare function useTopic<Value>(url: string, topics: string | string[], reduce: (value: Value, message: Message) => Value, initial: Value, options?: Omit<Options, "topics">): [Value, State];
