-- coroutines.lua - threads of Lua: made, wrapped, abandoned and closed by
-- the thousand; deep stacks that grow and shrink; errors inside.
-- Checks itself; prints the same lines on every allocator.

local scale = tonumber(os.getenv("HAKMEM_TEST_SCALE") or 1)
local function times(n) return math.max(1, n // scale) end

local sum = 0
local function add(n) sum = (sum * 31 + n) % 1000000007 end

-- Made and run to the end.
for i = 1, times(10000) do
    local co = coroutine.create(function(a)
        local b = coroutine.yield(a + 1)
        return b * 2
    end)
    local ok, x = coroutine.resume(co, i)
    assert(ok and x == i + 1)
    local ok2, y = coroutine.resume(co, x)
    assert(ok2 and y == 2 * (i + 1))
    assert(coroutine.status(co) == "dead")
    assert(not coroutine.resume(co))
    add(y)
end

-- Wrapped, as generators.
local function range(n)
    return coroutine.wrap(function()
        for i = 1, n do coroutine.yield(i) end
    end)
end
local total = 0
for i = 1, times(10000) do
    for v in range(i % 5) do total = total + v end
end
add(total)

-- Abandoned in the middle, some kept for a while.
local kept = {}
for i = 1, times(10000) do
    local co = coroutine.create(function()
        local t = {}
        for k = 1, i % 50 do t[k] = {k} end
        coroutine.yield(#t)
        error("never reached")
    end)
    local ok, n = coroutine.resume(co)
    assert(ok and n == i % 50)
    kept[i % 100 + 1] = co
    if i % 1000 == 0 then collectgarbage("step", 100) end
end
for _, co in pairs(kept) do assert(coroutine.status(co) == "suspended") end
kept = nil
collectgarbage()

-- Never started.
for i = 1, times(10000) do coroutine.create(print) end

-- Deep recursion: the stack grows, then shrinks, then grows again.
local function depth(n)
    if n == 0 then return 0 end
    return 1 + depth(n - 1)
end
for round = 1, times(40) do
    local n = 1 + round * 331 % 15000
    local co = coroutine.wrap(function()
        assert(depth(n) == n)
        coroutine.yield("half")
        collectgarbage()
        assert(depth(n // 2) == n // 2)
        return "end"
    end)
    assert(co() == "half")
    collectgarbage("step", 200)
    assert(co() == "end")
end
assert(depth(15000) == 15000)

-- Many arguments and results move much of a stack at once.
for n = 1, times(3000), 37 do
    local t = {}
    for i = 1, n do t[i] = i end
    local co = coroutine.wrap(function(...)
        local r = {coroutine.yield(...)}
        return table.unpack(r, 1, #r)
    end)
    local back = {co(table.unpack(t))}
    assert(#back == n and back[n] == n)
    back = {co(table.unpack(t))}
    assert(#back == n and back[1] == 1)
    for i = 1, n do add(back[i]) end
end

-- A chain of coroutines, each resuming the next; a yield through pcall.
local function chain(n)
    if n == 0 then
        coroutine.yield("bottom")
        return 0
    end
    local co = coroutine.create(chain)
    local ok, v = coroutine.resume(co, n - 1)
    assert(ok and v == "bottom")
    coroutine.yield("bottom")
    ok, v = coroutine.resume(co)
    assert(ok and v == n - 1)
    return n
end
local co = coroutine.create(chain)
assert(select(2, coroutine.resume(co, 100)) == "bottom")
collectgarbage()
assert(select(2, coroutine.resume(co)) == 100)

local through = coroutine.wrap(function()
    for i = 1, times(500) do
        local ok, message = pcall(function()
            local v = coroutine.yield(i)
            error({v})
        end)
        assert(not ok and message[1] == -i)
    end
    return "through"
end)
local v = through()
while v ~= "through" do
    add(v)
    v = through(-v)
end

-- Closed in the middle: to-be-closed variables run, deepest first.
for i = 1, times(1000) do
    local order = {}
    local function closer(name)
        return setmetatable({}, {__close = function()
            order[#order + 1] = name
            local t = {}
            for k = 1, 10 do t[k] = {name} end
        end})
    end
    local c = coroutine.create(function()
        local a <close> = closer("a")
        local function inner()
            local b <close> = closer("b")
            coroutine.yield()
        end
        inner()
    end)
    coroutine.resume(c)
    assert(coroutine.close(c))
    assert(table.concat(order) == "ba")
    add(#order)
end

-- Errors inside; a dead coroutine's traceback still reads.
for i = 1, times(2000) do
    local c = coroutine.create(function()
        depth(i % 200)
        error("boom " .. i, 0)
    end)
    local ok, message = coroutine.resume(c)
    assert(not ok and message == "boom " .. i)
    assert(debug.traceback(c):find("stack traceback"))
    local closed, why = coroutine.close(c)
    assert(closed or why == message) -- closed, before 5.4.3
end

-- Producer and consumer with strings of all sizes.
local function producer(n)
    return coroutine.create(function()
        for i = 1, n do coroutine.yield(("p"):rep(i)) end
    end)
end
local p, bytes = producer(times(2100)), 0
while true do
    local ok, s = coroutine.resume(p)
    assert(ok)
    if not s then break end
    bytes = bytes + #s
    add(#s)
end
local n = times(2100)
assert(bytes == n * (n + 1) // 2)

print("coroutines", sum)
