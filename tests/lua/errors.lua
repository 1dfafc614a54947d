-- errors.lua - recovery: errors of every kind at every depth, in coroutines,
-- in handlers, in finalizers; stack overflow in Lua and in C.
-- Checks itself; prints the same lines on every allocator.

local scale = tonumber(os.getenv("HAKMEM_TEST_SCALE") or 1)
local function times(n) return math.max(1, n // scale) end

local sum = 0
local function add(n) sum = (sum * 31 + n) % 1000000007 end

-- Error values of every type, through nested pcalls.
local function fail(depth, value)
    local filler = {depth, ("f"):rep(depth * 3)}
    if depth == 0 then error(value, 0) end
    fail(depth - 1, value)
    return filler
end
for i = 1, times(3000) do
    local value = ({i, "text" .. i, {i}, i % 2 == 0})[i % 4 + 1]
    local ok, got = pcall(fail, i % 100, value)
    assert(not ok and got == value)
    add(type(got) == "string" and #got or i)
end

local function nested(n)
    if n == 0 then error("core", 0) end
    local ok, message = pcall(nested, n - 1)
    assert(not ok)
    error(message .. "+", 0)
end
local ok, message = pcall(nested, 150)
assert(not ok and message == "core" .. ("+"):rep(150))

-- Handlers: with a traceback, and one that errs itself.
for i = 1, times(500) do
    local good, trace = xpcall(fail, function(m)
        return debug.traceback(m, 1)
    end, i % 50, "traced")
    assert(not good and trace:find("^traced\nstack traceback:"))
    local bad, why = xpcall(fail, function(m) error("again") end, 1, "x")
    assert(not bad and why)
    add(#trace:match("^[^\n]*"))
end

-- Deep inside coroutines inside coroutines.
local function deep(levels)
    if levels == 0 then
        return fail(60, {code = 77})
    end
    local co = coroutine.create(deep)
    local good, value = coroutine.resume(co, levels - 1)
    assert(not good)
    error(value)
end
for i = 1, times(200) do
    local good, value = pcall(deep, i % 60)
    assert(not good and value.code == 77)
end
for i = 1, times(2000) do
    local co = coroutine.wrap(function()
        local good, value = pcall(function()
            local t <close> = setmetatable({}, {__close = function()
                for k = 1, 5 do local _ = {k} end
            end})
            coroutine.yield(1)
            error({i})
        end)
        assert(not good and value[1] == i)
        coroutine.yield(2)
        error("last", 0)
    end)
    assert(co() == 1 and co() == 2)
    local good, value = pcall(co)
    assert(not good and value == "last")
    add(#value + i)
end

-- Errors in the middle of work of the library.
for i = 1, times(500) do
    assert(not pcall(table.sort, {3, 2, 1, 5, 4}, function(a, b)
        local t = {a, b}
        error(t)
    end))
    assert(not pcall(string.gsub, ("ab"):rep(800), "a", function()
        error("in gsub")
    end))
    assert(not pcall(table.concat, {1, 2, {}, 4}))
    assert(not pcall(string.rep, "x", -1, {}))
    assert(not pcall(setmetatable, 1, {}))
    assert(not pcall(load, function() error("reader") end) or true)
end

-- Stack overflow: the message, and the stack is usable after it.
local function forever(n) return 1 + forever(n + 1) end
for i = 1, times(3) do
    local good, why = pcall(forever, 1)
    assert(not good and tostring(why):find("stack overflow"))
    collectgarbage()
end
local co = coroutine.create(function() return forever(1) end)
local good, why = coroutine.resume(co)
assert(not good and tostring(why):find("stack overflow"))
local function recurse_c()
    return (string.gsub("x", "x", recurse_c))
end
good, why = pcall(recurse_c)
assert(not good and tostring(why):find("overflow"))
local chunk, too = load("return " .. ("("):rep(1000) .. "1" .. (")"):rep(1000))
assert(not chunk and too:find("overflow"))
add(#too)

-- Syntax errors after much has been compiled.
for i = 1, times(300) do
    local source = ("local a%d = function() return {%d} end\n"):rep(20)
    local chunk, why2 = load(source:gsub("%%d", i) .. "return +", "=bad")
    assert(not chunk and why2:find("^bad:21:"))
end

-- Errors in finalizers and in closing are no end of the world.
for i = 1, times(200) do
    setmetatable({}, {__gc = function() error({i}) end})
end
collectgarbage()
for i = 1, times(200) do
    local fine, value = pcall(function()
        local a <close> = setmetatable({}, {__close = function(_, e)
            assert(e == "inner")
            error("outer", 0)
        end})
        error("inner", 0)
    end)
    -- Before 5.4.3 the first error was the one that stayed.
    assert(not fine and (value == "outer" or value == "inner"))
    add(#value)
end

print("errors", sum)
