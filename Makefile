# HAKMEM's build. `make help` lists the targets.
#
#   VARIANT  release (default), debug, walks, asan, ubsan, tsan or valgrind
#   BUILD    where everything goes; default build/VARIANT
#   HARDENED 1: the hardened build, see core/guard/hard.h; BUILD ends in -hardened
#   CC       the compiler, gcc, clang or musl-gcc
#   WERROR   1: warnings are errors
#   V        1: show the commands
#   PREFIX   where `make install` installs, default /usr/local; LIBDIR,
#            INCLUDEDIR, MANDIR, LUADIR, PKGCONFIGDIR: parts of it elsewhere;
#            DESTDIR: a directory put before all of them
#
# What is built:
#   $(BUILD)/libhakmem.so       the malloc family: to preload, or -lhakmem
#   $(BUILD)/libhakmem.a        the same for static linking: leads the linker to
#                               libhakmem_malloc.a and hakmem_malloc.o beside it
#   $(BUILD)/libhakmem_core.a   the core alone, hak_* names: include/hakmem.h;
#   $(BUILD)/libhakmem_core.so  the same to share
#   $(BUILD)/libhakmem_lua.a    the core and the Lua adapter
#   $(BUILD)/lua/hakmem.so      the Lua module: LUA_CPATH=$(BUILD)/lua/?.so
#   $(BUILD)/bench/NAME, $(BUILD)/tests/unit/FOLDER/NAME, $(BUILD)/tests/lua/NAME
#
# The rest is in core/core.mk (which sources, which libraries), the .mk files of
# tests/, bench/ and docs/, and a build.mk in each adapter's folder, found by
# itself. What they add to:
#   ALL        goals of `make`, beside the libraries
#   LIBS       files of $(BUILD) that `make lib` makes and that are installed
#   SHARED     shared libraries, the same: each begins with lib, ends in .so
#   INSTALL    other files to install, words MODE:FILE:WHERE
#   HEADERS    public headers              PACKAGES  templates, .pc.in .cmake.in
#   TESTS      Criterion programs          TEST_NEEDS  what they need made
#   CHECKS     goals that `make test` makes after `make check`
#   DEMOS      goals of `make demo`
#   DEPS_test, DEPS_demo, DEPS  groups of .ci/install-deps for `make test`,
#              `make demo`, `make install-deps`
#   FLAGS_ALSO what else is compiled anew for when it changes
#   LEFT_OUT   what can't be made here: $(call left_out,...) of each

VARIANT ?= release
HARDENED ?= 0
WERROR ?= 0
V ?= 0
PYTHON ?= python3
CLANG_FORMAT ?= clang-format

PREFIX ?= /usr/local
LIBDIR ?= $(PREFIX)/lib
INCLUDEDIR ?= $(PREFIX)/include
MANDIR ?= $(PREFIX)/share/man
PKGCONFIGDIR ?= $(LIBDIR)/pkgconfig

# CROSS=aarch64-linux-gnu: for another processor; MUSL=1: for another C library. Either
# has a compiler, and a directory, of its own, and Criterion is not there for it.
CROSS ?=
MUSL ?= 0
ifneq ($(CROSS),)
CC := $(CROSS)-gcc
CXX := $(CROSS)-g++
AR := $(CROSS)-ar
LD := $(CROSS)-ld
BUILD ?= build/$(CROSS)$(if $(filter release,$(VARIANT)),,-$(VARIANT))
else ifeq ($(MUSL),1)
CC := musl-gcc
BUILD ?= build/musl
endif
BUILD ?= build/$(VARIANT)$(if $(filter 1,$(HARDENED)),-hardened)
# Its first word: aarch64. Empty: this machine's.
PROCESSOR := $(firstword $(subst -, ,$(CROSS)))
# Runs its programs; 16 GB of addresses, of which qemu has tables.
UNDER ?= $(if $(CROSS),qemu-$(PROCESSOR)-static -R 16G -L /usr/$(CROSS))

# make's own default for CC is cc, which a bare Debian may lack.
ifeq ($(origin CC),default)
CC := gcc
endif
# C++ is for tests alone.
ifeq ($(origin CXX),default)
CXX := $(if $(findstring clang,$(CC)),clang++,g++)
endif

MAKEFLAGS += --no-print-directory --no-builtin-rules
.DEFAULT_GOAL := all
.DELETE_ON_ERROR:
# Keep the objects of programs that are linked by a pattern rule.
.SECONDARY:

ifeq ($(V),1)
Q :=
SAY := @:
else
Q := @
SAY := @printf '  %-5s %s\n'
endif

# ---- flags ------------------------------------------------------------------

VARIANT_release := -O2
VARIANT_debug := -O0 -DHAK_DEBUG=1
VARIANT_asan := -O1 -DHAK_DEBUG=1 -DHAK_SMALL_RANGE=1 -fno-omit-frame-pointer \
    -fsanitize=address -fno-sanitize-recover=all
VARIANT_ubsan := -O1 -DHAK_DEBUG=1 -fsanitize=undefined \
    -fno-sanitize-recover=all
VARIANT_tsan := -O1 -DHAK_DEBUG=1 -DHAK_SMALL_RANGE=1 -fsanitize=thread \
    -fno-sanitize-recover=all
VARIANT_valgrind := -O1 -DHAK_DEBUG=1 -DHAK_SMALL_RANGE=1
# Walks whole lanes at every move of a slab: base/assert.h. For few tests.
VARIANT_walks := -O1 -DHAK_DEBUG=2

# What `make fuzz` builds: the release and the asan variant as libFuzzer needs
# them, with clang; the latter walks.
VARIANT_fuzz := $(VARIANT_release) -fsanitize=fuzzer-no-link
VARIANT_fuzzasan := $(subst HAK_DEBUG=1,HAK_DEBUG=2,$(VARIANT_asan)) \
    -fsanitize=fuzzer-no-link

VARIANTS := release debug walks asan ubsan tsan valgrind fuzz fuzzasan
ifeq ($(filter $(VARIANT),$(VARIANTS)),)
$(error VARIANT=$(VARIANT) is unknown; use one of: $(VARIANTS))
endif

VERSION := $(shell cat VERSION)
VERSION_MAJOR := $(firstword $(subst ., ,$(VERSION)))

# Debian's valgrind can't read the debug information that clang 14 writes.
DEBUG_INFO := $(if $(findstring clang,$(CC)),-gdwarf-4,-g)

FLAGS := -std=gnu11 -D_GNU_SOURCE= $(DEBUG_INFO) -fPIC -fvisibility=hidden \
    -ftls-model=initial-exec -Wall -Wextra -Wpedantic \
    $(if $(filter 1,$(WERROR)),-Werror) -pthread -Iinclude -Icore \
    -DHAK_VERSION_STRING='"$(VERSION)"' $(VARIANT_$(VARIANT)) \
    $(if $(filter 1,$(HARDENED)),-DHAK_HARDENED=1)

# CFLAGS and LDFLAGS are the user's and come last. But -flto: what a member of
# an archive defines in assembler, or is put together by `ld -r`, would be lost.
COMPILE = $(CC) $(FLAGS) $(CFLAGS) -fno-lto -MMD -MP
LINK = $(CC) -pthread $(filter -fsanitize=%,$(FLAGS)) $(LDFLAGS)

# ---- the fragments ----------------------------------------------------------

# $(call left_out,WHAT,WHY,PACKAGE): a word of LEFT_OUT, which `make lib` says.
left_out = $(subst $() ,~,$1: $2 (Debian: apt install $3))
say_left_out = $(foreach line,$1,echo '  left out: $(subst ~, ,$(line))';)

# $(call without,WHAT,WHY,PACKAGE): ends a goal that can't be made.
without = { echo 'make: $1: $2; on Debian: apt install $3' >&2; exit 1; }

# What stands for "a stock interpreter": Debian's, where there is one.
STOCK_PYTHON ?= $(firstword $(wildcard /usr/bin/python3) $(PYTHON))

# A BUILD given by hand gets a directory beside it for every variant.
BESIDE = $(if $(filter file,$(origin BUILD)),build/,$(BUILD)-)$1

# Empty whatever the environment says.
$(foreach list,TESTS LIBS SHARED INSTALL HEADERS PACKAGES PACKAGE_SED TEST_NEEDS CHECKS \
    DEMOS FLAGS_ALSO LEFT_OUT,$(eval $(list) :=))
ALL := lib
# criterion, or where it is missing `plain`, which has the part that our tests use. A
# compiler for another processor may find this one's headers.
TEST_LIBRARY ?= $(if $(CROSS),plain,$(if $(shell \
    printf '\043include <criterion/criterion.h>\n' | \
    $(CC) $(CFLAGS) -E - >/dev/null 2>&1 && echo 1),criterion,plain))
TEST_LIBRARY := $(TEST_LIBRARY)
TEST_PLAIN := $(if $(filter plain,$(TEST_LIBRARY)),$(BUILD)/testing/tests/support/plain/criterion.o)
TEST_LINK := $(if $(TEST_PLAIN),,-lcriterion)
FLAGS_ALSO += $(filter plain,$(TEST_LIBRARY))
SUPPORT := $(patsubst %.c,$(BUILD)/testing/%.o,$(wildcard tests/support/*.c)) $(TEST_PLAIN)
# Under an emulator tests are as slow as under valgrind, and see as little.
TESTING := $(if $(CROSS),-DHAK_SMALL_RANGE=1)
OTHER_PAGES := $(BUILD)/tests/libpages.so
STAMP := $(BUILD)/flags
DEPS := lint ci
DEPS_test := test
DEPS_demo := demo

# $(eval $(call criterion,PROGRAMS,LIBRARY,WORDS)): $(BUILD)/NAME each, of NAME.c
# compiled for testing, linked with the library and with WORDS. Where the folder shall
# be, a program of an older tree may lie.
define criterion
$(1): $(BUILD)/%: $(BUILD)/testing/%.o $(SUPPORT) $(2)
	$$(SAY) LINK $$@
	@rm -f $$(@D) 2>/dev/null; mkdir -p $$(@D)
	$$(Q)$$(LINK) -o $$@ $$(filter %.o %.a,$$^) $(3) $(TEST_LINK) -lm -ldl
endef

include core/core.mk tools/tools.mk $(wildcard tools/*/build.mk) \
    $(sort $(wildcard adapters/*/build.mk)) tests/tests.mk bench/bench.mk docs/docs.mk \
    .ci/upkeep.mk packaging/packaging.mk $(wildcard examples/build.mk) tests/cross.mk

# Everything compiled depends on this file, which changes when a flag does.
FLAGS_NOW := $(strip $(CC) $(FLAGS) $(CFLAGS) $(LDFLAGS) $(FLAGS_ALSO))
ifneq ($(file <$(STAMP)),$(FLAGS_NOW))
$(STAMP): force
endif
$(STAMP):
	@mkdir -p $(@D)
	@printf '%s\n' '$(subst ','\'',$(FLAGS_NOW))' >$@

# ---- rules ------------------------------------------------------------------

$(BUILD)/%.a:
	$(SAY) AR $@
	$(Q)rm -f $@ && $(AR) rcs $@ $(filter %.o,$^)

$(BUILD)/obj/%.o: %.c $(STAMP)
	$(SAY) CC $<
	@mkdir -p $(@D)
	$(Q)$(COMPILE) -c $< -o $@

# For the tests: with HAK_TESTING, hooks included.
$(BUILD)/testing/%.o: %.c $(STAMP)
	$(SAY) CC "$< (testing)"
	@mkdir -p $(@D)
	$(Q)$(COMPILE) -DHAK_TESTING=1 $(TESTING) -c $< -o $@

# nodelete: threads end in it when it would be gone. -ldl: before glibc 2.34
# dlsym is there.
$(SHARED:%=$(BUILD)/%):
	$(SAY) LINK $@
	@mkdir -p $(@D)
	$(Q)$(LINK) -shared -Wl,-soname,$(@F).$(VERSION_MAJOR) -o $@ $(filter %.o,$^) \
	    -Wl,-Bsymbolic -Wl,-z,nodelete -Wl,-z,now -Wl,-z,defs \
	    -Wl,--no-as-needed -ldl -Wl,--as-needed
	$(Q)ln -sf $(@F) $@.$(VERSION_MAJOR)

# ---- goals ------------------------------------------------------------------

all: $(ALL) ## use: build the libraries and the Lua module
	@:

lib: $(patsubst %,$(BUILD)/%,$(SHARED) $(LIBS)) ## use: build the libraries
	@$(call say_left_out,$(LEFT_OUT)):

test: ## test: install what is missing, build, run every test
	@.ci/install-deps $(DEPS_test)
	@tests/sum.sh '$(MAKE) check' $(CHECKS:%='$(MAKE) %')

build-tests: $(ALL) $(TESTS) $(TEST_NEEDS) ## test: build what `make check` runs
	@:

check: build-tests ## test: run the tests of VARIANT, installing nothing
	@$(PYTHON) tests/run.py --build $(BUILD) --variant $(VARIANT) \
	    --again $(or $(HAKMEM_TEST_AGAIN),0) $(if $(UNDER),--under '$(UNDER)') $(TESTS)

check-asan check-ubsan check-tsan check-valgrind: check-%: ## test: the same in that variant
	@$(MAKE) check VARIANT=$* BUILD=$(call BESIDE,$*)

# Minutes if it were all of them.
WALKED := tests/fuzz/replay tests/unit/together/stress
check-walks: ## test: the fuzzer's corpus and a stress test with whole lanes walked
	@$(MAKE) check VARIANT=walks BUILD=$(call BESIDE,walks) ALL=lib TEST_NEEDS= \
	    TESTS='$(WALKED:%=$(call BESIDE,walks)/%)'

demo: ## use: install what is missing, run Lua, Python and nginx with and without HAKMEM
	@.ci/install-deps $(DEPS_demo)
	@$(MAKE) demo-run
demo-run:
	@bad=0; $(foreach goal,$(DEMOS),$(MAKE) $(goal) || bad=1; echo;) exit $$bad

# ---- install ----------------------------------------------------------------

INSTALL += $(HEADERS:%=644:%:$(INCLUDEDIR)/) $(LIBS:%=644:$(BUILD)/%:$(LIBDIR)/)
# Each word with its file's name behind a directory's.
INSTALL_AS = $(foreach word,$(INSTALL),$(if $(filter %/,$(word)),$(word)$(notdir \
    $(word 2,$(subst :, ,$(word)))),$(word)))
# Where a template goes, filled in.
package_to = $(if $(filter %.cmake.in,$1),$(LIBDIR)/cmake/hakmem,$(PKGCONFIGDIR))/$(notdir \
    $(1:.in=))
INSTALLED = $(foreach word,$(INSTALL_AS),$(lastword $(subst :, ,$(word)))) \
    $(foreach lib,$(SHARED),$(addprefix $(LIBDIR)/,$(lib) \
        $(lib).$(VERSION_MAJOR) $(lib).$(VERSION))) \
    $(foreach package,$(PACKAGES),$(call package_to,$(package))) \
    $(MAN_INSTALLED)
# The loader finds a new library by its cache.
LDCONFIG = $(if $(DESTDIR),,[ "$$(id -u)" -ne 0 ] || PATH="$$PATH:/sbin" ldconfig ||) :

install: $(ALL) docs-if ## use: install below PREFIX (DESTDIR before it)
	$(SAY) INST '$(DESTDIR)$(PREFIX)'
	$(Q)set -e; for dir in $(sort $(dir $(INSTALLED))); do \
	    install -d '$(DESTDIR)'"$$dir"; done
	$(Q)set -e; for word in $(INSTALL_AS); do \
	    rest=$${word#*:} && install -m "$${word%%:*}" "$${rest%%:*}" \
	        '$(DESTDIR)'"$${rest#*:}"; done
	$(Q)set -e; cd '$(DESTDIR)$(LIBDIR)'; for lib in $(SHARED); do \
	    install -m 755 '$(abspath $(BUILD))'/"$$lib" "$$lib.$(VERSION)"; \
	    ln -sf "$$lib.$(VERSION)" "$$lib.$(VERSION_MAJOR)"; \
	    ln -sf "$$lib.$(VERSION_MAJOR)" "$$lib"; done
	$(Q)set -e; for word in $(foreach package,$(PACKAGES),$(package):$(call \
	    package_to,$(package))); do sed -e 1d -e 's,@PREFIX@,$(PREFIX),' \
	    -e 's,@LIBDIR@,$(LIBDIR),' -e 's,@INCLUDEDIR@,$(INCLUDEDIR),' \
	    -e 's,@VERSION@,$(VERSION),' $(PACKAGE_SED) "$${word%%:*}" \
	    >'$(DESTDIR)'"$${word#*:}"; done
	$(MAN_INSTALL)
	$(Q)$(LDCONFIG)

uninstall: ## use: remove what install put there, with the same variables
	$(SAY) RM '$(DESTDIR)$(PREFIX)'
	$(Q)rm -f $(INSTALLED:%='$(DESTDIR)'%)
	$(Q)$(LDCONFIG)

# ---- the rest ---------------------------------------------------------------

clean: ## upkeep: remove what was built
	rm -rf $(if $(filter file,$(origin BUILD)),build,$(BUILD))

help: ## use: list the targets
	@echo "make [TARGET] [VARIANT=$(subst $() ,|,$(VARIANTS))]" \
	    "[CC=gcc|clang|musl-gcc] [WERROR=1] [V=1]"
	@awk -f docs/help.awk $(filter-out %.d,$(MAKEFILE_LIST))

.PHONY: all lib test build-tests check check-asan check-ubsan check-tsan check-valgrind \
    check-walks demo demo-run install uninstall clean help force

ifneq ($(wildcard $(BUILD)),)
-include $(shell find $(BUILD) \( -name nginx-static -o -path $(BUILD)/deb \) -prune \
    -o -name '*.d' -print)
endif
