# What tests/wrap needs: its Criterion programs, and the small programs they
# run. Included by tests/tests.mk.
#
#   programs/plain/NAME    knows nothing of HAKMEM: run with it preloaded
#   programs/shared/NAME   linked with -lhakmem
#   programs/archive/NAME  linked with libhakmem.a, all else shared
#   programs/static/NAME   linked with libhakmem.a and nothing shared
#
# The undefined-behaviour sanitizer's library is in C++, needs other libraries
# and knows no static C++ programs: WRAP_SANITIZED leaves those tests out.
# Not for the address and thread sanitizers and valgrind, which are allocators
# themselves (a test runs a program under valgrind by itself).

ifneq ($(filter release debug ubsan,$(VARIANT)),)

PROGRAMS := tests/wrap/programs

WRAP_TESTS := $(patsubst %.c,$(BUILD)/%,$(wildcard tests/wrap/*.c))
WRAP_PROGRAMS := $(addprefix $(BUILD)/$(PROGRAMS)/, \
    $(addprefix plain/,alone filtered back behaviour pages owns misuse cancels sized forks forks_atfork \
        opens opens_cxx cxx early plugins handles libcnames libcnames_wraps \
        opener ownmalloc debugs plugins_nopie handles_nopie forkstorm forkstorm_core refused limited \
        libearly.so libatfork.so libopened.so libcxx.so \
        libplugin.so libprivate.so libouter.so inner/libinner.so libopener.so \
        libaudit.so libwraps.so libhandlers.so librefuses.so \
        hosts owners libcopy.so libowner.so libcounts.so \
        $(if $(HAVE_LUA),cores libcore.so libcorecopy.so libluacopy.so)) \
    $(addprefix shared/,behaviour before cxx plugins handles forkstorm hosts \
        owners) \
    $(addprefix archive/,back behaviour sized before cxx cxx_static_runtime secret \
        plugins handles libcnames links links_lto links_shared forkstorm \
        owners) \
    $(addprefix archive/,limited) $(addprefix static/,limited behaviour links_lto links_shared forkstorm \
        $(if $(filter ubsan,$(VARIANT)),,cxx)))

$(BUILD)/testing/tests/wrap/%.o: \
    FLAGS += $(if $(filter ubsan,$(VARIANT)),-DWRAP_SANITIZED=1)

TESTS += $(WRAP_TESTS)
WRAP_PROGRAMS += $(OTHER_PAGES)
TEST_NEEDS += $(WRAP_PROGRAMS)

$(WRAP_TESTS): $(BUILD)/tests/%: $(BUILD)/testing/tests/%.o $(TEST_PLAIN)
	$(SAY) LINK $@
	@mkdir -p $(@D)
	$(Q)$(LINK) -o $@ $^ $(TEST_LINK)

HOW_plain :=
HOW_shared := -L$(BUILD) -lhakmem -Wl,-rpath,$(abspath $(BUILD))
HOW_archive := -rdynamic -Wl,-u,hak_owns $(BUILD)/libhakmem.a \
    $(filter -fsanitize=%,$(FLAGS))
HOW_static := -DPROGRAM_STATIC -static $(BUILD)/libhakmem.a \
    $(filter -fsanitize=%,$(FLAGS))
NEEDS_shared := $(BUILD)/libhakmem.so
NEEDS_archive := $(BUILD)/libhakmem.a
NEEDS_static := $(BUILD)/libhakmem.a

PROGRAM_FLAGS := $(DEBUG_INFO) -O1 -fPIC -fno-builtin -Wall -Wextra -pthread -D_GNU_SOURCE \
    -Iinclude $(if $(filter 1,$(WERROR)),-Werror)
PROGRAM_C := $(CC) -std=gnu11 $(PROGRAM_FLAGS) $(CFLAGS)
PROGRAM_CXX := $(CXX) -std=c++17 -fsized-deallocation $(PROGRAM_FLAGS) $(CXXFLAGS)

# Sources once more, otherwise: as optimised when linked; with no call of
# malloc.
PROGRAM_LTO := -O2 -fbuiltin -flto
PROGRAM_KIND = $(if $(filter %_lto,$(@F)),$(PROGRAM_LTO))$(if $(filter \
    %_shared,$(@F)),-DPROGRAM_NO_MALLOC)

# $(1): plain, shared, archive or static. What a target's PROGRAM_LIBS names comes last,
# but for what has dlsym and timer_create before glibc 2.34.
PROGRAM_DL := -ldl -lrt
define program_rules
$(BUILD)/$(PROGRAMS)/$(1)/%: $(PROGRAMS)/%.c $(PROGRAMS)/program.h $(STAMP) \
    $(NEEDS_$(1))
	$$(SAY) CC $$@
	@mkdir -p $$(@D)
	$$(Q)$(PROGRAM_C) -o $$@ $$< $(HOW_$(1)) $$(PROGRAM_LIBS) $(PROGRAM_DL)

$(BUILD)/$(PROGRAMS)/$(1)/%: $(PROGRAMS)/%.cc $(STAMP) $(NEEDS_$(1))
	$$(SAY) CXX $$@
	@mkdir -p $$(@D)
	$$(Q)$(PROGRAM_CXX) -o $$@ $$< $(HOW_$(1)) $$(PROGRAM_LIBS) $(PROGRAM_DL)

$(addprefix $(BUILD)/$(PROGRAMS)/$(1)/links,_lto _shared): \
    $(PROGRAMS)/links.c $(PROGRAMS)/program.h $(STAMP) $(NEEDS_$(1))
	$$(SAY) CC $$@
	@mkdir -p $$(@D)
	$$(Q)$(PROGRAM_C) $$(PROGRAM_KIND) -o $$@ $$< $(HOW_$(1)) $(PROGRAM_DL)

$(BUILD)/$(PROGRAMS)/$(1)/lib%.so: $(PROGRAMS)/lib%.c $(PROGRAMS)/program.h $(STAMP)
	$$(SAY) CC $$@
	@mkdir -p $$(@D)
	$$(Q)$(PROGRAM_C) -shared -o $$@ $$< $$(PROGRAM_LIBS) $(PROGRAM_DL)

$(BUILD)/$(PROGRAMS)/$(1)/lib%.so: $(PROGRAMS)/lib%.cc $(STAMP)
	$$(SAY) CXX $$@
	@mkdir -p $$(@D)
	$$(Q)$(PROGRAM_CXX) -shared -o $$@ $$< $$(PROGRAM_LIBS) $(PROGRAM_DL)

endef
$(foreach how,plain shared archive static,$(eval $(call program_rules,$(how))))

# Libraries that lie beside the program that uses them.
PROGRAM_BESIDE = -L$(@D) -Wl,-rpath,'$$ORIGIN'
$(BUILD)/$(PROGRAMS)/plain/libearly.so: PROGRAM_LIBS := -Wl,-z,initfirst
$(BUILD)/$(PROGRAMS)/plain/early: PROGRAM_LIBS = $(PROGRAM_BESIDE) -learly
$(BUILD)/$(PROGRAMS)/plain/early: $(BUILD)/$(PROGRAMS)/plain/libearly.so

$(BUILD)/$(PROGRAMS)/plain/libopener.so: PROGRAM_LIBS := -Wl,-z,initfirst \
    -Wl,--enable-new-dtags,-rpath,'$$ORIGIN'
$(BUILD)/$(PROGRAMS)/plain/opener: PROGRAM_LIBS = $(PROGRAM_BESIDE) -lopener
$(BUILD)/$(PROGRAMS)/plain/opener: $(BUILD)/$(PROGRAMS)/plain/libopener.so
$(BUILD)/$(PROGRAMS)/plain/debugs: PROGRAM_LIBS := -Wno-deprecated-declarations

# libplugin.c in every kind.
PLUGIN_private := -DPLUGIN_PRIVATE -Wl,-Bsymbolic
PLUGIN_outer := -DPLUGIN_OPENS -Wl,--enable-new-dtags,-rpath,'$$ORIGIN/inner'
$(addprefix $(BUILD)/$(PROGRAMS)/plain/,libprivate.so libouter.so \
    inner/libinner.so): $(PROGRAMS)/libplugin.c $(PROGRAMS)/program.h $(STAMP)
	$(SAY) CC $@
	@mkdir -p $(@D)
	$(Q)$(PROGRAM_C) -shared -o $@ $< $(PLUGIN_$(patsubst lib%.so,%,$(@F))) \
	    $(PROGRAM_DL)

$(BUILD)/$(PROGRAMS)/plain/libcnames_wraps: $(PROGRAMS)/libcnames.c \
    $(PROGRAMS)/program.h $(STAMP)
	$(SAY) CC $@
	$(Q)$(PROGRAM_C) -DPROGRAM_WRAPS -o $@ $< $(PROGRAM_DL)

# The same sources once more, linked otherwise.
$(BUILD)/$(PROGRAMS)/plain/forks_atfork: $(PROGRAMS)/forks.c \
    $(PROGRAMS)/program.h $(STAMP) $(BUILD)/$(PROGRAMS)/plain/libatfork.so
	$(SAY) CC $@
	$(Q)$(PROGRAM_C) -o $@ $< -Wl,--no-as-needed $(PROGRAM_BESIDE) -latfork $(PROGRAM_DL)

# Not position independent, and malloc's address is taken: it is an entry of the
# program's linkage table then.
$(BUILD)/$(PROGRAMS)/plain/%_nopie: $(PROGRAMS)/%.c $(PROGRAMS)/program.h $(STAMP)
	$(SAY) CC $@
	@mkdir -p $(@D)
	$(Q)$(PROGRAM_C) -fno-pic -fno-pie -no-pie -DPROGRAM_NAMES_MALLOC=1 -o $@ \
	    $< $(PROGRAM_LIBS) $(PROGRAM_DL)

# Programs and libraries with a core of their own, and copies of what there is.
PROGRAM_CORE = $(LUA_CFLAGS) $(BUILD)/libhakmem_lua.a $(LUA_LIBS) -lm -ldl \
    $(filter -fsanitize=%,$(FLAGS))
$(addprefix $(BUILD)/$(PROGRAMS)/plain/,cores libcore.so): PROGRAM_LIBS = \
    $(PROGRAM_CORE)
$(addprefix $(BUILD)/$(PROGRAMS)/plain/,cores libcore.so): \
    $(BUILD)/libhakmem_lua.a

COPY_libcopy := $(BUILD)/libhakmem.so
COPY_libluacopy := $(BUILD)/lua/hakmem.so
COPY_libcorecopy := $(BUILD)/$(PROGRAMS)/plain/libcore.so
define copy_rule
$(BUILD)/$(PROGRAMS)/plain/$(1).so: $(COPY_$(1))
	$$(Q)mkdir -p $$(@D) && cp $$< $$@

endef
$(foreach copy,libcopy libluacopy libcorecopy,$(eval $(call copy_rule,$(copy))))

PROGRAM_OWNER = -L$(BUILD)/$(PROGRAMS)/plain -lowner \
    -Wl,-rpath,$(abspath $(BUILD)/$(PROGRAMS)/plain)
$(foreach how,plain shared archive,$(BUILD)/$(PROGRAMS)/$(how)/owners): \
    PROGRAM_LIBS = $(PROGRAM_OWNER)
$(foreach how,plain shared archive,$(BUILD)/$(PROGRAMS)/$(how)/owners): \
    $(BUILD)/$(PROGRAMS)/plain/libowner.so

# With handlers that are registered before a preloaded library's; and with a core
# of its own beside that.
$(BUILD)/$(PROGRAMS)/plain/forkstorm: $(BUILD)/$(PROGRAMS)/plain/libhandlers.so
$(BUILD)/$(PROGRAMS)/plain/forkstorm: PROGRAM_LIBS = -Wl,--no-as-needed \
    $(PROGRAM_BESIDE) -lhandlers
$(BUILD)/$(PROGRAMS)/plain/forkstorm_core: $(PROGRAMS)/forkstorm.c \
    $(PROGRAMS)/program.h $(STAMP) $(BUILD)/libhakmem_core.a \
    $(BUILD)/$(PROGRAMS)/plain/libhandlers.so
	$(SAY) CC $@
	$(Q)$(PROGRAM_C) -o $@ $< -Wl,-u,hak_malloc $(BUILD)/libhakmem_core.a \
	    -Wl,--no-as-needed $(PROGRAM_BESIDE) -lhandlers $(PROGRAM_DL) \
	    $(filter -fsanitize=%,$(FLAGS))

# Half an hour of it, by hand; STORM_MODES: see forkstorm.c.
STORM_SECONDS ?= 60
STORM_MODES ?= all
.PHONY: check-fork-storm
check-fork-storm: $(BUILD)/libhakmem.so $(BUILD)/$(PROGRAMS)/plain/forkstorm ## test: fork for STORM_SECONDS in a busy process on libhakmem.so
	@LD_PRELOAD='$(abspath $(BUILD))/libhakmem.so' \
	    $(BUILD)/$(PROGRAMS)/plain/forkstorm $(STORM_SECONDS) $(STORM_MODES)

$(BUILD)/$(PROGRAMS)/archive/cxx_static_runtime: $(PROGRAMS)/cxx.cc \
    $(STAMP) $(NEEDS_archive)
	$(SAY) CXX $@
	@mkdir -p $(@D)
	$(Q)$(PROGRAM_CXX) -static-libstdc++ -static-libgcc -o $@ $< $(HOW_archive) $(PROGRAM_DL)

endif
