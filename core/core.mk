# The core: which sources make which library.
#
# A file's name tells: wrap* and libc_real.c are for the libraries in which malloc
# is ours, libc_plain.c for the others; hard* is for HARDENED=1; wrap_need.c is no
# part of a library (see libhakmem.a below). Everything else is the core.

CORE_FILES := $(sort $(wildcard core/*/*.c))
# $(call core_files,PATTERN...): those of them with such a name.
core_files = $(foreach file,$(CORE_FILES),$(if $(filter $1,$(notdir $(file))),$(file)))

NEED := $(call core_files,wrap_need.c)
WRAP := $(filter-out $(NEED),$(call core_files,wrap%.c libc_real.c))
CORE := $(filter-out $(WRAP) $(NEED) $(if $(filter 1,$(HARDENED)),, \
    $(call core_files,hard%.c)),$(CORE_FILES))
WRAPPED := $(filter-out $(call core_files,libc_plain.c),$(CORE)) $(WRAP)

CORE_OBJECTS := $(CORE:%.c=$(BUILD)/obj/%.o)
CORE_TESTING := $(CORE:%.c=$(BUILD)/testing/%.o)
WRAPPED_OBJECTS := $(WRAPPED:%.c=$(BUILD)/obj/%.o)

# The address and thread sanitizers are a malloc themselves.
SHARED += $(if $(filter asan tsan,$(VARIANT)),,libhakmem.so libhakmem_core.so)
LIBS += libhakmem.a libhakmem_malloc.a hakmem_malloc.o libhakmem_core.a
HEADERS += include/hakmem.h include/hakmem_stats.def
PACKAGES += hakmem.pc.in hakmem_core.pc.in $(wildcard cmake/*.cmake.in)

$(BUILD)/libhakmem_core.a $(BUILD)/libhakmem_core.so: $(CORE_OBJECTS)
$(BUILD)/libhakmem_testing.a: $(CORE_TESTING)
$(BUILD)/libhakmem.so: $(WRAPPED_OBJECTS)

# gcc must not turn our calloc's code into a call of calloc, nor assume that
# the exception a new-handler throws is impossible.
$(WRAP:%.c=$(BUILD)/obj/%.o): FLAGS += -fexceptions -fno-builtin-malloc \
    -fno-builtin-calloc -fno-builtin-realloc -fno-builtin-free

# malloc and free begin, and their taken branches land, at addresses that the
# processor decodes from at once. Measured on a Xeon, 9 runs each: a pair of 4,096 B
# takes 0.93 of the time of -O2's alignment, a batch of 1 to 8 KB 0.95, nothing more.
ifeq ($(VARIANT),release)
$(WRAP:%.c=$(BUILD)/obj/%.o): FLAGS += -falign-functions=32 \
    $(if $(findstring clang,$(CC)),,-falign-jumps=32)
endif

# One member holds all names of C, so that a program gets all of them or none.
WRAP_C := $(filter-out $(call core_files,wrap_new.c wrap_nothrow.c \
    wrap_alone.c),$(WRAP))
$(BUILD)/obj/wrap_c.o: $(WRAP_C:%.c=$(BUILD)/obj/%.o)
	$(SAY) LINK $@
	$(Q)$(LD) -r -o $@ $(sort $^)

WRAP_NEW := $(patsubst %.c,$(BUILD)/obj/static/%.o,$(call core_files,wrap_new.c))
$(WRAP_NEW): $(BUILD)/obj/static/%.o: %.c $(STAMP)
	$(SAY) CC "$< (static)"
	@mkdir -p $(@D)
	$(Q)$(COMPILE) -fexceptions -DHAK_STATIC_NEW=1 -c $< -o $@

$(BUILD)/libhakmem_malloc.a: $(BUILD)/obj/wrap_c.o $(WRAP_NEW) \
    $(filter-out $(WRAP:%.c=$(BUILD)/obj/%.o),$(WRAPPED_OBJECTS))

# From the archive malloc is taken if it is asked for, which hakmem_malloc.o
# does (wrap_need.c). Linkers look beside the script first. Not EXTERN: mold
# does not know it.
$(BUILD)/hakmem_malloc.o: $(BUILD)/obj/$(NEED:.c=.o)
	$(Q)cp $< $@
$(BUILD)/libhakmem.a: $(BUILD)/libhakmem_malloc.a $(BUILD)/hakmem_malloc.o $(STAMP)
	$(SAY) LINK $@
	$(Q)printf '/* GNU ld script: HAKMEM %s */\nINPUT(%s %s)\n' $(VERSION) \
	    hakmem_malloc.o libhakmem_malloc.a >$@

# The page of a profile, line by line, as page.c compiles it: kept in the tree, so
# that who builds without make has it.
core/profile/page_lines.inc: core/profile/page.html
	$(SAY) GEN $@
	$(Q)sed -e 's/[\\"]/\\&/g' -e 's/.*/"&",/' $< >$@
$(foreach kind,obj testing,$(BUILD)/$(kind)/core/profile/page.o): \
    core/profile/page_lines.inc
