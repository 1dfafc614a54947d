-- strings.lua - strings of every size around the lane's bound, buffers that
-- grow over it, patterns, formats, interning.
-- Checks itself; prints the same lines on every allocator.

local scale = tonumber(os.getenv("HAKMEM_TEST_SCALE") or 1)
local function times(n) return math.max(1, n // scale) end

local sum = 0
local function add(n) sum = (sum * 31 + n) % 1000000007 end

-- All of a string's bytes.
local function addall(s)
    for i = 1, #s do sum = (sum * 31 + s:byte(i)) % 1000000007 end
end

-- Every length around 1024, made in four ways; equal, and kept over cycles.
local kept = {}
for n = 950, 1080 do
    local a = ("a"):rep(n)
    local t = {}
    for i = 1, n do t[i] = "a" end
    local b = table.concat(t)
    local c = ("b"):rep(n):gsub("b", "a")
    local d = a:sub(1, n // 2) .. a:sub(n // 2 + 1)
    assert(a == b and b == c and c == d and #d == n)
    kept[n] = {a, b, c, d}
end
collectgarbage()
for n = 950, 1080 do
    for _, s in ipairs(kept[n]) do assert(s == ("a"):rep(n)) end
end
kept = nil

-- One string grown byte by byte over 1024 and up to 4096.
local s = ""
for i = 1, times(4096) do s = s .. string.char(97 + i % 26) end
for i = 1, #s do assert(s:byte(i) == 97 + i % 26) end
addall(s)

-- Big strings, doubled to a megabyte and cut down.
local big = "0123456789abcdef"
while #big < (1 << 20) do big = big .. big end
assert(#big == 1 << 20 and big:sub(-16) == "0123456789abcdef")
while #big > 16 do
    big = big:sub(1, #big // 2)
    assert(big:sub(-16) == "0123456789abcdef")
end

-- Short strings are interned: many of them, twice; the table of strings
-- grows and shrinks.
for round = 1, 3 do
    local names = {}
    for i = 1, times(20000) do names["name" .. i] = i end
    for i = 1, times(20000) do assert(names["name" .. i] == i) end
    names = nil
    collectgarbage()
end

-- Patterns.
local text = ("the quick brown fox; "):rep(times(400))
local words = 0
for w in text:gmatch("%a+") do words = words + #w end
assert(words == 16 * times(400))
local swapped = text:gsub("(%a+) (%a+)", "%2 %1")
assert(#swapped == #text and swapped:find("quick the", 1, true) == 1)
local counted = select(2, text:gsub("%f[%a]fox%f[%A]", ""))
assert(counted == times(400))
local upper = text:gsub("%a+", function(w) return w:upper() end)
assert(upper == text:upper())
local map = text:gsub("%a+", {the = "a", fox = false, brown = "red"})
assert(map:find("a quick red fox;", 1, true) == 1)
assert(("  trim  "):match("^%s*(.-)%s*$") == "trim")
assert(("f(a(b)c)d"):match("%b()") == "(a(b)c)")
assert(("key = value"):match("^(%w+)%s*=%s*(%w+)$") == "key")
addall(swapped)
addall(map)

-- Formats, also longer than any buffer.
for n = 1, 99 do
    assert(#string.format("%" .. n .. "d", 7) == n)
end
for n = 100, times(3000) + 100, 13 do
    local f = string.format("%s|%q|%5.1f", ("z"):rep(n), "a\nb", 2.5)
    assert(#f == n + 1 + 6 + 1 + 5, #f)
    addall(f:sub(n))
end
assert(string.format("%a", 1) == "0x1p+0")

-- Packed values.
local packed = {}
for i = 1, times(2000) do
    packed[i] = string.pack("<i4z s2", i, "n" .. i, ("v"):rep(i % 300))
end
for i = 1, times(2000) do
    local n, name, v = string.unpack("<i4z s2", packed[i])
    assert(n == i and name == "n" .. i and #v == i % 300)
    add(#packed[i])
end
packed = nil

-- Numbers to strings and back.
for i = 1, times(5000) do
    local x = i * 1.25
    assert(tonumber(tostring(x)) == x)
    assert(tonumber(string.format("%x", i), 16) == i)
end

-- A rope of parts joined at the end; reversed, repeated, with separators.
local parts = {}
for i = 1, times(10000) do parts[i] = i % 10 end
local joined = table.concat(parts, ",")
assert(#joined == 2 * #parts - 1)
assert(joined:reverse():reverse() == joined)
assert(("ab"):rep(3, "-") == "ab-ab-ab")
addall(joined)

-- A buffer whose callback errs in the middle: what it held is freed.
for i = 1, times(500) do
    local ok, message = pcall(string.gsub, ("x"):rep(3000), "x", function()
        i = i + 1
        if i % 1500 == 0 then error("stop", 0) end
        return "yy"
    end)
    assert(ok or message == "stop")
end
collectgarbage()

-- utf8
local u = {}
for c = 0x3b1, 0x3c9 do u[#u + 1] = utf8.char(c) end
local greek = table.concat(u):rep(times(100))
assert(utf8.len(greek) == 25 * times(100))
local last
for _, c in utf8.codes(greek) do last = c end
assert(last == 0x3c9)

print("strings", sum)
