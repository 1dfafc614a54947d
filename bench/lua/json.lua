-- json.lua: writes and reads JSON documents in plain Lua.
--
-- Stands for services that take a document apart, change it and send it on:
-- short strings, small tables, long concatenations. A unit returns a sum
-- over the texts and the values read back.

local ORDERS = 130

local function order(i)
    local lines = {}
    for k = 1, i % 5 + 1 do
        lines[k] = {
            sku = string.format("SKU-%04d", (i * 31 + k * 7) % 5000),
            count = k * 3 % 7 + 1,
            price = (i * k % 997) + 0.25,
            gift = k % 3 == 0,
        }
    end
    return {
        id = 100000 + i,
        customer = { name = "Customer \"" .. i .. "\"",
                     mail = "user" .. i .. "@example.org" },
        status = i % 4 == 0 and "open" or "sent\tout",
        notes = i % 6 == 0 and {} or { "line " .. i, "caf\u{e9}\n" },
        lines = lines,
        total = i * 1.5,
    }
end

-- Writing --------------------------------------------------------------

local SHORT = { ['"'] = '\\"', ["\\"] = "\\\\", ["\n"] = "\\n",
                ["\t"] = "\\t", ["\r"] = "\\r" }

local function quoted(text)
    return '"' .. text:gsub('[%c"\\]', function(c)
        return SHORT[c] or string.format("\\u%04x", c:byte())
    end) .. '"'
end

local write_value

local function write_list(list, out)
    out[#out + 1] = "["
    for i, value in ipairs(list) do
        if i > 1 then
            out[#out + 1] = ","
        end
        write_value(value, out)
    end
    out[#out + 1] = "]"
end

-- Keys in order, so that the text does not depend on the hash seed.
local function write_object(object, out)
    local keys = {}
    for key in pairs(object) do
        keys[#keys + 1] = key
    end
    table.sort(keys)
    for i, key in ipairs(keys) do
        out[#out + 1] = (i == 1 and "{" or ",") .. quoted(key) .. ":"
        write_value(object[key], out)
    end
    out[#out + 1] = "}"
end

function write_value(value, out)
    local kind = type(value)
    if kind == "table" then
        if #value > 0 or next(value) == nil then
            write_list(value, out)
        else
            write_object(value, out)
        end
    elseif kind == "string" then
        out[#out + 1] = quoted(value)
    else
        out[#out + 1] = tostring(value)
    end
end

local function encode(value)
    local out = {}
    write_value(value, out)
    return table.concat(out)
end

-- Reading: every reader takes the text and a position and returns the value
-- and the position behind it. -------------------------------------------

local read_value

local LONG = { n = "\n", t = "\t", r = "\r", b = "\b", f = "\f" }
local WORDS = { ["true"] = true, ["false"] = false }

local function unescaped(text)
    text = text:gsub("\\u(%x%x%x%x)", function(hex)
        return utf8.char(tonumber(hex, 16))
    end)
    return (text:gsub("\\(.)", function(c) return LONG[c] or c end))
end

local function read_string(text, at)
    local stop = at + 1
    while true do
        local found = text:find('["\\]', stop)
        if text:byte(found) == 34 then
            local raw = text:sub(at + 1, found - 1)
            if raw:find("\\", 1, true) then
                raw = unescaped(raw)
            end
            return raw, found + 1
        end
        stop = found + 2
    end
end

local function read_list(text, at)
    local list = {}
    at = text:find("%S", at + 1)
    if text:byte(at) == 93 then
        return list, at + 1
    end
    repeat
        list[#list + 1], at = read_value(text, at)
        at = text:find("[,%]]", at) + 1
    until text:byte(at - 1) == 93
    return list, at
end

local function read_object(text, at)
    local object = {}
    repeat
        local key
        key, at = read_string(text, text:find('"', at, true))
        object[key], at = read_value(text, text:find(":", at, true) + 1)
        at = text:find("[,}]", at) + 1
    until text:byte(at - 1) == 125
    return object, at
end

function read_value(text, at)
    at = text:find("%S", at)
    local first = text:byte(at)
    if first == 123 then
        return read_object(text, at)
    elseif first == 91 then
        return read_list(text, at)
    elseif first == 34 then
        return read_string(text, at)
    end
    local from, to = text:find("^[%w%+%-%.]+", at)
    local word = text:sub(from, to)
    if WORDS[word] ~= nil then
        return WORDS[word], to + 1
    end
    return tonumber(word), to + 1
end

local function decode(text)
    return (read_value(text, 1))
end

-- The service ----------------------------------------------------------

local function settle(orders)
    local sum = 0
    for _, one in ipairs(orders) do
        local total = 0
        for _, line in ipairs(one.lines) do
            total = total + line.count * line.price
        end
        one.total = total
        one.status = "settled"
        sum = sum + total
    end
    return sum
end

local function bytes_sum(text)
    local sum = #text
    for i = 1, #text, 97 do
        sum = (sum * 33 + text:byte(i)) % 1000000007
    end
    return sum
end

local documents = {}
for d = 1, 4 do
    local orders = {}
    for i = 1, ORDERS do
        orders[i] = order(d * 1000 + i)
    end
    documents[d] = encode(orders)
end

return function()
    local sum = 0
    for _, text in ipairs(documents) do
        local orders = decode(text)
        sum = sum + settle(orders) * 4
        local again = encode(orders)
        sum = sum + bytes_sum(again) + #decode(again)
    end
    return string.format("%.0f", sum)
end
