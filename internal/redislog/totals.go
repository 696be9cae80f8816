package redislog

import "github.com/redis/go-redis/v9"

// The totals are a hash with the number of clients at each address over all instances. Each instance adds its
// changes, and notes in a hash of its own what it has added, in one step: so its share can be taken back when
// it is gone. The totals have a name, their term. When they are lost, or a share is, they begin again under
// another one, and each instance that sees it adds all it has.
//
// Changes of patterns are numbered. A sorted set has each pattern with the number of its last change; those
// that no client has any longer are in a second one for a while. So an instance reads only what has
// changed. The same holds for members: clients at places that have presence, which only instances read that have
// such places themselves; and for guests. A guest whom nobody has any longer says goodbye: it stands in a set of its
// own until it is settled.

// totalsLua begins the scripts below. A key that has become something else loses everything: it is told
// again.
//
// KEYS: the hash of the instance that is told of, the totals, the living, all instances, the patterns, the
// patterns that are gone, the members, the members that are gone, the guests, the guests that are gone, the goodbyes.
const totalsLua = `
local own, totals, living, instances = unpack(KEYS)
local numbered = { -- what is told as changes, by the beginning of its fields
	['p:'] = {here = KEYS[5], gone = KEYS[6], change = 'change', forgotten = 'forgotten'},
	['m:'] = {here = KEYS[7], gone = KEYS[8], change = 'change-m', forgotten = 'forgotten-m'},
	['s:'] = {here = KEYS[9], gone = KEYS[10], change = 'change-s', forgotten = 'forgotten-s', leave = KEYS[11]},
}
local leftUntil = nil -- when others than the caller are to settle guests who leave
local function call(...)
	local reply = redis.pcall(...)
	if type(reply) == 'table' and reply.err then -- Redis 6.2 puts a place before what the server refuses
		error((string.gsub(reply.err, '^@user_script: ?%d+: %-?', '')), 0)
	end
	return reply
end
local function count(text)
	local n = tonumber(text or 0)
	if not n then error('WRONGTYPE of a count', 0) end
	return n
end
local function now()
	local time = call('TIME')
	return time[1] * 1000 + math.floor(time[2] / 1000)
end
local function add(field, n)
	local total = call('HINCRBY', totals, field, n)
	if total <= 0 then call('HDEL', totals, field) end
	local sets = numbered[string.sub(field, 1, 2)]
	if not sets then return end
	local change, name = call('HINCRBY', totals, sets.change, 1), string.sub(field, 3)
	local from, to = sets.gone, sets.here
	if total <= 0 then from, to = sets.here, sets.gone end
	call('ZREM', from, name)
	call('ZADD', to, change, name)
	if total <= 0 and sets.leave then
		call('ZADD', sets.leave, leftUntil, name)
		call('PEXPIRE', sets.leave, 3600000)
	end
	if call('ZCARD', sets.gone) > 10000 then
		local oldest = call('ZRANGEBYSCORE', sets.gone, '-inf', '+inf', 'WITHSCORES', 'LIMIT', 0, 1)
		call('ZREM', sets.gone, oldest[1])
		call('HSET', totals, sets.forgotten, oldest[2])
	end
end
local function begin()
	call('UNLINK', totals, unpack(KEYS, 5, 10))
end
local function renew() -- the totals must not outlive the share of an instance that nobody takes back
	for _, key in ipairs({totals, living, unpack(KEYS, 5, 10)}) do call('PEXPIRE', key, 30000) end
	call('PEXPIRE', own, 60000)
end
local function run(body)
	local done, reply = pcall(body)
	if done then return reply end
	local spoilt = string.find(reply, 'WRONGTYPE') or string.find(reply, 'not an integer')
	if not spoilt then return {err = reply} end
	local dropped = redis.pcall('UNLINK', unpack(KEYS))
	if type(dropped) == 'table' and dropped.err then return dropped end
	return false
end
`

// tellScript adds what an instance tells to the totals, and returns what it should know of the others. An
// instance joins with its first call. Nothing is done if the server takes no messages.
//
// ARGV: the instance, a name for new totals, the term of the totals that the patterns were read of, the
// change up to which they were read, the change at which reading them all began, whether to look for dead
// instances, after how many ms an instance is dead; whether members are read, and as for patterns of which term,
// up to which change, and where it began; the same four of guests; for how many ms this instance settles its own guests
// who leave, for how many those it is given, and how many it is given at most; how many are settled, and these; then
// fields of the instance's hash, each with its number of clients.
//
// It returns nothing if a key was no longer what it should be. Otherwise: whether the instance had joined
// before, so that all it ever told is in the totals; their term; the time in ms; the number of other
// instances; that of the fields that the instance has told; dead instances, given to one caller at a time;
// whether the patterns begin again; the change at which reading them all began; the change up to which they
// are read now; whether there are more; and each changed pattern with its number of clients on other
// instances; then the same five of members, and of guests; and the guests whom the caller is to settle.
var tellScript = redis.NewScript(totalsLua + `
local instance, fresh = ARGV[1], ARGV[2]
local settled = 20
local told = settled + ARGV[settled - 1]
local function join(term, wasLiving)
	local of, swept = unpack(call('HMGET', own, 'term', 'swept'))
	if term and wasLiving and of == term and not swept then return term, 1 end
	-- The hash goes last when an instance is swept. If only one of the two is there, a share is lost.
	local lost = wasLiving and not of or of == term and not wasLiving
	if not term or lost then
		begin()
		term = fresh
		call('HSET', totals, 'term', term)
	end
	if of ~= term then call('UNLINK', own) end
	call('HSET', own, 'alive', 1, 'term', term)
	call('HDEL', own, 'swept')
	call('SADD', instances, instance)
	return term, 0
end
local function tell()
	for i = settled, told - 1 do call('ZREM', KEYS[11], ARGV[i]) end
	local fields = {}
	for i = told, #ARGV, 2 do fields[#fields + 1] = ARGV[i] end
	if #fields == 0 then return end
	local before, some, none = call('HMGET', own, unpack(fields)), {}, {}
	for i, field in ipairs(fields) do
		local n, had = tonumber(ARGV[told - 1 + 2 * i]), count(before[i])
		if n ~= had then add(field, n - had) end
		if n > 0 then
			some[#some + 1], some[#some + 2] = field, n
		else
			none[#none + 1] = field
		end
	end
	if #some > 0 then call('HSET', own, unpack(some)) end
	if #none > 0 then call('HDEL', own, unpack(none)) end
end
local function dead(at)
	if ARGV[6] ~= '1' or at < count(call('HGET', totals, 'sweeping')) then return {} end
	local names = call('ZRANGEBYSCORE', living, '-inf', at - ARGV[7], 'LIMIT', 0, 10)
	if #names > 0 then call('HSET', totals, 'sweeping', at + 1000) end
	return names
end
local function changed(kind, term, readOf, upTo, began)
	local sets = numbered[kind]
	local change, forgotten = unpack(call('HMGET', totals, sets.change, sets.forgotten))
	change, upTo, began = count(change), count(upTo), count(began)
	local again = 0
	if readOf ~= term or count(forgotten) > math.max(upTo, began) then upTo, began, again = 0, change, 1 end
	if upTo == change then return again, began, upTo, 0, {} end
	local after, names, fields = '(' .. upTo, {}, {}
	upTo = change
	for _, key in ipairs({sets.here, sets.gone}) do
		local some = call('ZRANGEBYSCORE', key, after, '+inf', 'LIMIT', 0, 250)
		if #some == 250 then upTo = math.min(upTo, count(call('ZSCORE', key, some[250]))) end
		for _, name in ipairs(some) do names[#names + 1], fields[#fields + 1] = name, kind .. name end
	end
	if #fields == 0 then return again, began, upTo, 0, {} end
	local all, mine = call('HMGET', totals, unpack(fields)), call('HMGET', own, unpack(fields))
	local numbers = {}
	for i, name in ipairs(names) do
		numbers[2 * i - 1], numbers[2 * i] = name, math.max(0, count(all[i]) - count(mine[i]))
	end
	return again, began, upTo, upTo < change and 1 or 0, numbers
end
local function goodbyes(at)
	if ARGV[12] ~= '1' then return {} end
	local names = call('ZRANGEBYSCORE', KEYS[11], '-inf', at, 'LIMIT', 0, ARGV[18])
	for _, name in ipairs(names) do call('ZADD', KEYS[11], at + ARGV[17], name) end
	return names
end
return run(function()
	local term, wasLiving, at = call('HGET', totals, 'term'), call('ZSCORE', living, instance), now()
	leftUntil = at + ARGV[16]
	call('ZADD', living, at, instance) -- a server that takes no messages refuses this
	local joined
	term, joined = join(term, wasLiving)
	tell()
	if joined == 0 or #ARGV >= told or call('PTTL', own) < 50000 then renew() end
	local reply = {joined, term, at, call('ZCARD', living) - 1, call('HLEN', own) - 2, dead(at)}
	for _, value in ipairs({changed('p:', term, ARGV[3], ARGV[4], ARGV[5])}) do reply[#reply + 1] = value end
	local function read(kind, i)
		local some = {0, 0, 0, 0, {}}
		if ARGV[i] == '1' then some = {changed(kind, term, ARGV[i + 1], ARGV[i + 2], ARGV[i + 3])} end
		for _, value in ipairs(some) do reply[#reply + 1] = value end
	end
	read('m:', 8)
	read('s:', 12)
	reply[22] = goodbyes(at)
	return reply
end)
`)

// sweepScript takes back a piece of what a dead instance has told. When nothing is left, the instance is
// forgotten.
//
// ARGV: the instance, after how many ms it is dead, where the piece begins; at first 0.
//
// It returns where the next piece begins; nothing if there is none, or if the instance is alive.
var sweepScript = redis.NewScript(totalsLua + `
local instance = ARGV[1]
return run(function()
	local seen = call('ZSCORE', living, instance)
	if not seen or tonumber(seen) > now() - ARGV[2] then return false end
	local term, of = call('HGET', totals, 'term'), call('HGET', own, 'term')
	if of and of == term then
		leftUntil = now()
		call('HSET', own, 'swept', 1) -- so that it tells everything, should it come back
		local next, pairsOfFields = unpack(call('HSCAN', own, ARGV[3], 'COUNT', 250))
		local counts = {} -- a scan may tell a field twice
		for i = 1, #pairsOfFields, 2 do counts[pairsOfFields[i]] = pairsOfFields[i + 1] end
		counts.alive, counts.term, counts.swept = nil, nil, nil
		for field, n in pairs(counts) do
			if string.sub(field, 2, 2) == ':' then add(field, -count(n)) end
			call('HDEL', own, field)
		end
		renew()
		if next ~= '0' or call('HLEN', own) > 3 then return next end
	elseif not of then
		begin() -- nobody knows its share
	end
	call('UNLINK', own)
	call('ZREM', living, instance)
	call('SREM', instances, instance)
	return false
end)
`)
