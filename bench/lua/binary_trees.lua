-- binary_trees.lua: builds, walks and drops binary trees.
--
-- Stands for programs made of many equal small tables that live in waves:
-- a tree kept for the whole run, and short-lived ones of several depths.
-- A unit returns the number of nodes it walked and a sum over them.

local KEPT_DEPTH = 12
local SHORT_DEPTHS = { 4, 6, 8, 10 }
local NODES_PER_DEPTH = 24 << 10

-- A node is an array of two children; a leaf an empty table.
local function build(depth)
    if depth == 0 then
        return {}
    end
    return { build(depth - 1), build(depth - 1) }
end

local function count(node)
    local left = node[1]
    if not left then
        return 1
    end
    return 1 + count(left) + count(node[2])
end

-- A tree ordered by key, grown by insertion, with named fields.
local function insert(node, key)
    if not node then
        return { key = key }
    end
    local side = key < node.key and "left" or "right"
    node[side] = insert(node[side], key)
    return node
end

local function weigh(node, depth)
    if not node then
        return 0
    end
    return (node.key % 97) * depth + weigh(node.left, depth + 1)
        + weigh(node.right, depth + 1)
end

local function grown(keys)
    local root, key = nil, 1
    for _ = 1, keys do
        key = (key * 16807) % 2147483647
        root = insert(root, key)
    end
    return weigh(root, 1)
end

local kept = build(KEPT_DEPTH)

return function()
    local nodes = 0
    for _, depth in ipairs(SHORT_DEPTHS) do
        for _ = 1, NODES_PER_DEPTH >> depth do
            nodes = nodes + count(build(depth))
        end
    end
    return (nodes + count(kept)) * 1000003 + grown(9000)
end
