# The adapter for a Lua other than 5.4: `make lua LUA=5.1|5.2|5.3|5.5|luajit`. Everything
# of it is in $(BUILD)/lua5.3 or the like, beside the rest and beside other versions:
#
#   $(BUILD)/lua5.3/hakmem.so            the module, for $(LIBDIR)/lua/5.3
#   $(BUILD)/lua5.3/libhakmem_lua5.3.a   for hosts
#
#   LUA_SRC   its sources (lua.h and the rest, in it or in its src/), for a version that
#             no package has: compiled, with an interpreter, into the same folder

LUAS := 5.1 5.2 5.3 5.4 5.5 luajit
ifeq ($(filter $(LUA),$(LUAS)),)
$(error LUA=$(LUA) is unknown; use one of: $(LUAS))
endif

# ---- where it is ----------------------------------------------------------------

LUA_NAME := $(if $(filter luajit,$(LUA)),luajit,lua$(LUA))
LUA_DEBIAN := $(if $(filter luajit,$(LUA)),libluajit2-5.1-dev,$(if $(filter \
    5.1,$(LUA)),liblua5.1-0-dev,liblua$(LUA)-dev))
LUA_DIR := $(BUILD)/$(LUA_NAME)
LUA_AT := $(if $(LUA_SRC),$(patsubst %/lua.h,%,$(firstword $(wildcard \
    $(LUA_SRC)/lua.h $(LUA_SRC)/src/lua.h))))

ifneq ($(LUA_SRC),)
ifeq ($(LUA_AT),)
$(error LUA_SRC=$(LUA_SRC) has no lua.h, nor has its src/; name the folder of a Lua's sources)
endif
OTHER_CFLAGS := -I$(LUA_AT)
OTHER_LIBS := $(LUA_DIR)/liblua.a
OTHER_STOCK := $(LUA_DIR)/lua
else
OTHER_CFLAGS := $(shell pkg-config --cflags $(LUA_NAME) 2>/dev/null)
OTHER_LIBS := $(shell pkg-config --libs $(LUA_NAME) 2>/dev/null)
OTHER_STOCK := $(firstword $(shell command -v $(LUA_NAME) 2>/dev/null) $(LUA_DIR)/lua)
endif

# Whether lua.h there is of that version.
OTHER_WANTED := $(if $(filter luajit,$(LUA)),501,$(subst .,0,$(LUA)))
OTHER_IS := $(shell printf '\043include <lua.h>\n\043if LUA_VERSION_NUM != \
    $(OTHER_WANTED)\n\043error\n\043endif' | \
    $(CC) $(OTHER_CFLAGS) $(CFLAGS) -E - >/dev/null 2>&1 && echo 1)

# ---- what is made -----------------------------------------------------------------

# What reads 5.4's structures has a counterpart in other/.
OTHER_SOURCES := $(filter-out %/hak_lua_types.c %/hak_lua_inside.c, \
    $(wildcard adapters/lua/*.c)) $(wildcard adapters/lua/other/*.c)
OTHER_OBJECTS := $(OTHER_SOURCES:%.c=$(LUA_DIR)/obj/%.o)
OTHER_MODULE := $(LUA_DIR)/hakmem.so
OTHER_LIBRARY := $(LUA_DIR)/libhakmem_$(LUA_NAME).a
OTHER_TESTING := $(LUA_DIR)/testing/libhakmem_lua.a
# types.c is about 5.4's structures; some others' programs are in 5.4's language. What
# LuaJIT keeps for compiled code is more than limit.c, soft.c and switch.c allow for.
# tests/lua/versions.c has what they are about in words that every version knows.
OTHER_STEMS := $(filter-out types readme scripts guards profile profile_module on_limit \
    module programs $(if $(filter 5.1 luajit,$(LUA)),fault) $(if $(filter \
    luajit,$(LUA)),limit soft switch state),$(patsubst tests/lua/%.c,%,$(wildcard tests/lua/*.c)))
OTHER_TESTS := $(OTHER_STEMS:%=$(LUA_DIR)/tests/lua/%)

$(LUA_DIR)/obj/%.o: %.c $(STAMP)
	$(SAY) CC "$< (Lua $(LUA))"
	@mkdir -p $(@D)
	$(Q)$(COMPILE) $(OTHER_CFLAGS) -c $< -o $@

$(LUA_DIR)/testing/%.o: %.c $(STAMP)
	$(SAY) CC "$< (Lua $(LUA), testing)"
	@mkdir -p $(@D)
	$(Q)$(COMPILE) -DHAK_TESTING=1 -Itests -Itests/unit -Itests/support -Iadapters/lua \
	    $(if $(findstring clang,$(CC)),-Wno-gnu-zero-variadic-macro-arguments) \
	    $(OTHER_CFLAGS) -c $< -o $@

$(OTHER_LIBRARY): $(CORE_OBJECTS) $(OTHER_OBJECTS)
$(OTHER_TESTING): $(CORE_TESTING) $(OTHER_SOURCES:%.c=$(LUA_DIR)/testing/%.o)

$(OTHER_MODULE): $(CORE_OBJECTS) $(OTHER_OBJECTS) adapters/lua/module.map
	$(SAY) LINK $@
	@mkdir -p $(@D)
	$(Q)$(LINK) -shared -o $@ $(filter %.o,$^) -Wl,-z,nodelete \
	    -Wl,--exclude-libs,ALL -Wl,--version-script=adapters/lua/module.map

# A Lua from sources: all of them but what is a program, or is for Lua's own tests.
OTHER_LUA_C := $(filter-out %/lua.c %/luac.c %/ltests.c %/onelua.c, \
    $(wildcard $(LUA_AT)/l*.c))
$(LUA_DIR)/liblua.a: $(OTHER_LUA_C)
	$(SAY) AR $@
	@rm -rf $(LUA_DIR)/src && mkdir -p $(LUA_DIR)/src
	$(Q)cd $(LUA_DIR)/src && $(CC) -O2 -fPIC -DLUA_USE_LINUX -DLUA_COMPAT_5_3 \
	    -c $(abspath $(OTHER_LUA_C)) && $(AR) rcs ../liblua.a *.o

$(LUA_DIR)/lua: $(if $(LUA_SRC),$(LUA_DIR)/liblua.a,tests/lua/stock/lua.c)
	$(SAY) LINK $@
	@mkdir -p $(@D)
	$(Q)$(CC) -O2 -DLUA_USE_LINUX $(OTHER_CFLAGS) -Wl,-E -o $@ \
	    $(if $(LUA_SRC),$(LUA_AT)/lua.c,tests/lua/stock/lua.c) $(OTHER_LIBS) -lm -ldl

$(OTHER_TESTS): $(LUA_DIR)/tests/lua/%: $(LUA_DIR)/testing/tests/lua/%.o $(SUPPORT) \
    $(OTHER_TESTING) $(if $(LUA_SRC),$(OTHER_LIBS))
	$(SAY) LINK $@
	@mkdir -p $(@D)
	$(Q)$(LINK) -o $@ $(filter-out $(OTHER_LIBS),$(filter %.o %.a,$^)) \
	    $(OTHER_LIBS) $(TEST_LINK) -lm -ldl

# ---- goals ---------------------------------------------------------------------------

.PHONY: lua-other check-lua check-luas
ifeq ($(OTHER_IS),1)
lua-other: $(OTHER_MODULE) $(OTHER_LIBRARY)
	@:

check-lua: lua-other $(OTHER_TESTS) $(OTHER_STOCK) ## test: tests/lua on another Lua: LUA=5.3, LUA_SRC=its sources
	@LUA='$(OTHER_STOCK)' HAKMEM_TEST_LUA_MODULE_DIR='$(LUA_DIR)' \
	    $(PYTHON) tests/run.py --build $(LUA_DIR) --variant $(VARIANT) $(OTHER_TESTS)
else
lua-other check-lua:
	@$(if $(filter 5.5,$(LUA)),echo 'make: Lua 5.5: name the folder of its sources with LUA_SRC' \
	    >&2; exit 1,$(call without,the Lua module for LUA=$(LUA),no lua.h of \
	    it,$(LUA_DEBIAN)))
endif

# Those that are at hand; 5.5 where LUA_SRC has it.
check-luas: ## test: tests/lua on every Lua that is at hand; 5.5: LUA_SRC=its sources
	@.ci/install-deps luas
	@bad=0; for lua in 5.1 5.2 5.3 luajit; do \
	    if pkg-config --exists "$$(echo "lua$$lua" | sed 's/lualuajit/luajit/')"; then \
	        echo "Lua $$lua"; $(MAKE) check-lua LUA="$$lua" LUA_SRC= || bad=1; \
	    else echo "Lua $$lua: not here"; fi; done; \
	$(if $(LUA_SRC),echo 'Lua 5.5'; $(MAKE) check-lua LUA=5.5 || bad=1;) exit $$bad
