-- wordfreq.lua: counts the words of a generated text.
--
-- Stands for text processing: a text read line by line, words found by
-- pattern and lowered, counts and positions in tables with string keys, a
-- sorted report. A unit returns a sum over the report.

local LINES = 1600
local WORDS_PER_LINE = 14

local SYLLABLES = { "ka", "lo", "mi", "ren", "su", "tor", "ve", "ax", "bel",
                    "ni", "o", "pra", "qui", "sta", "um", "wy" }

local seed = 7

local function random(n)
    seed = (seed * 16807) % 2147483647
    return seed % n
end

-- Small numbers come much more often, as words in a language do.
local function word_number()
    local n = random(3000)
    for _ = 1, random(4) do
        n = random(n + 1)
    end
    return n
end

local function word()
    local n, text = word_number(), ""
    repeat
        text = text .. SYLLABLES[n % #SYLLABLES + 1]
        n = n // #SYLLABLES
    until n == 0
    if random(9) == 0 then
        text = text:sub(1, 1):upper() .. text:sub(2)
    end
    return text
end

local function line()
    local words = {}
    for i = 1, WORDS_PER_LINE do
        words[i] = word()
    end
    return table.concat(words, " ") .. "."
end

local function text()
    local lines = {}
    for i = 1, LINES do
        lines[i] = line()
    end
    return table.concat(lines, "\n")
end

local function count(source)
    local entries, number = {}, 0
    for row in source:gmatch("[^\n]+") do
        number = number + 1
        for found in row:gmatch("%a+") do
            local key = found:lower()
            local entry = entries[key]
            if not entry then
                entry = { times = 0, rows = {} }
                entries[key] = entry
            end
            entry.times = entry.times + 1
            entry.rows[#entry.rows + 1] = number
        end
    end
    return entries
end

local function report(entries)
    local keys = {}
    for key in pairs(entries) do
        keys[#keys + 1] = key
    end
    table.sort(keys, function(a, b)
        local left, right = entries[a].times, entries[b].times
        return left > right or left == right and a < b
    end)
    local lines = {}
    for i = 1, math.min(#keys, 400) do
        local key = keys[i]
        local entry = entries[key]
        lines[i] = string.format("%-12s %5d  %s", key, entry.times,
            table.concat(entry.rows, ",", 1, math.min(#entry.rows, 8)))
    end
    return table.concat(lines, "\n"), #keys
end

return function()
    seed = 7
    local words, kinds = report(count(text()))
    local sum = #words * 1000 + kinds
    for i = 1, #words, 61 do
        sum = (sum * 31 + words:byte(i)) % 1000000007
    end
    return sum
end
