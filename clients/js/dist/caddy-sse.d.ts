/** A message of the stream. */
export interface Message {
    /** Its event name; "message" if it has none. */
    event: string;
    data: string;
    /** The Last-Event-ID after it. */
    id: string;
}
/** What the server says first on each connection, unless its route has `connected_event off`. */
export interface Hello {
    client_id: string;
    /** Whether the server made the client_id up. */
    generated: boolean;
    topics: string[];
    /** Whether everything missed follows ("complete"), something may be missing ("gap"), or there was no ID ("none"). */
    resume: "none" | "complete" | "gap";
}
/**
 * What a subscription is doing. It is "waiting" before it tries again, "paused" while its page is hidden, and "closed"
 * for good.
 */
export type State = "connecting" | "live" | "waiting" | "paused" | "closed";
/** What there is to say about a state. */
export interface Why {
    /** Plain English, for logs. */
    why?: string;
    /** The status of the answer that closed the subscription, or that it waits after. */
    status?: number;
    /** How long it waits, in milliseconds. */
    wait?: number;
}
/** All of it may be left out. */
export interface Options {
    /** What to listen to. Left out, the route's own topics. */
    topics?: string | string[];
    /** Where to begin: "all", "latest", "-50", "10m", a time. Left out, with what comes from now on. */
    since?: string;
    /** Is called with each message, in order. */
    event?: (message: Message) => void;
    /** Is called with what the server says first on each connection. */
    connected?: (hello: Hello) => void;
    /** Is called when messages may be missing: get the present state by other means. */
    gap?: (reason: string) => void;
    /** Is called with each change of the state. */
    state?: (state: State, why: Why) => void;
    /**
     * The bearer token, or what gets one before each connection. `renew` tells that the server took the last one no
     * longer.
     */
    token?: string | ((renew: boolean) => string | Promise<string>);
    /**
     * The name by which the server knows this client. Left out, one is made up and kept for the tab; false sends none.
     */
    clientId?: string | false;
    /** Where to go on; the `id` of a message. */
    lastEventId?: string;
    /** Whether to let go of the connection while the page is hidden. */
    pauseWhileHidden?: boolean;
    /**
     * After how many milliseconds without a byte the line counts as dead: more than the server's heartbeat, which is 30 s
     * by default. 0 means never. Left out, 90,000.
     */
    silence?: number;
    /** What else to send: credentials, headers. */
    request?: RequestInit;
}
/** What `subscribe` returns. */
export interface Subscription {
    readonly clientId: string;
    readonly lastEventId: string;
    readonly state: State;
    /** Ends it. Nothing is called any more. */
    close(): void;
}
/** Listens to a stream until it is closed, by the caller or by the server. */
export declare function subscribe(url: string | URL, options?: Options): Subscription;
