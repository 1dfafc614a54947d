# examples/build.mk - programs that give HAKMEM to a library, on hakmem.h alone.
#
# A program per file, each with the header that it needs and what it is linked
# with. An example whose header is missing is left out, with a line.
# QUICKJS_CFLAGS and QUICKJS_LIBS name a QuickJS elsewhere than Debian's, which
# is in Debian 13 and later.

DEPS += examples
EXAMPLES := curl duktape expat libxml2 mruby openssl quickjs sqlite uv zmalloc

QUICKJS_CFLAGS ?= -I/usr/include/quickjs
QUICKJS_LIBS ?= $(or $(firstword $(wildcard /usr/lib/*/quickjs/libquickjs.a \
    /usr/lib/quickjs/libquickjs.a)),-lquickjs)

EXAMPLE_HEADER_curl := curl/curl.h
EXAMPLE_LIBS_curl := -lcurl
EXAMPLE_HEADER_duktape := duktape.h
EXAMPLE_LIBS_duktape := -lduktape
EXAMPLE_HEADER_expat := expat.h
EXAMPLE_LIBS_expat := -lexpat
EXAMPLE_HEADER_libxml2 := libxml/parser.h
EXAMPLE_CFLAGS_libxml2 := -I/usr/include/libxml2
EXAMPLE_LIBS_libxml2 := -lxml2
EXAMPLE_HEADER_mruby := mruby.h
EXAMPLE_LIBS_mruby := -lmruby
EXAMPLE_HEADER_openssl := openssl/ssl.h
EXAMPLE_LIBS_openssl := -lcrypto
EXAMPLE_HEADER_quickjs := quickjs.h
EXAMPLE_CFLAGS_quickjs = -Wno-unused-parameter $(QUICKJS_CFLAGS)
EXAMPLE_LIBS_quickjs = $(QUICKJS_LIBS) -ldl
EXAMPLE_HEADER_sqlite := sqlite3.h
EXAMPLE_LIBS_sqlite := -lsqlite3
EXAMPLE_HEADER_uv := uv.h
EXAMPLE_LIBS_uv := -luv
EXAMPLE_HEADER_zmalloc := malloc.h

# Those whose header the compiler finds, and the others.
ifneq ($(filter %examples %examples-run,$(MAKECMDGOALS)),)
EXAMPLES_FOUND := $(foreach name,$(EXAMPLES),$(shell \
    $(CC) -E -xc $(EXAMPLE_CFLAGS_$(name)) -include $(EXAMPLE_HEADER_$(name)) \
        /dev/null >/dev/null 2>&1 && echo $(name)))
endif
EXAMPLES_LEFT_OUT = $(filter-out $(EXAMPLES_FOUND),$(EXAMPLES))

# As an embedder would compile them: no internal header is within reach.
$(BUILD)/examples/%: examples/%.c examples/example.h include/hakmem.h $(STAMP) \
    $(BUILD)/libhakmem_core.a
	$(SAY) CC $<
	@mkdir -p $(@D)
	$(Q)$(CC) -std=gnu11 -D_GNU_SOURCE= -O2 $(DEBUG_INFO) -Wall -Wextra \
	    $(if $(filter 1,$(WERROR)),-Werror) $(filter -fsanitize=%,$(FLAGS)) \
	    -Iinclude $(EXAMPLE_CFLAGS_$*) $(CFLAGS) -o $@ $< $(LDFLAGS) \
	    $(BUILD)/libhakmem_core.a $(EXAMPLE_LIBS_$*) -lm -pthread

EXAMPLES_RUN = $(PYTHON) examples/run.py \
    $(EXAMPLES_LEFT_OUT:%=--left-out %) $(EXAMPLES_FOUND:%=$(BUILD)/examples/%)

.PHONY: examples check-examples check-examples-run bench-examples \
    bench-examples-run
examples: $(EXAMPLES_FOUND:%=$(BUILD)/examples/%) ## use: build programs that give HAKMEM to SQLite, curl and others
	@:

check-examples: ## test: those programs built and run, each into a limit too
	@.ci/install-deps examples
	@$(MAKE) check-examples-run

check-examples-run: examples
	@$(EXAMPLES_RUN)

bench-examples: ## bench: their instructions and memory beside the C library's
	@.ci/install-deps examples
	@$(MAKE) bench-examples-run

bench-examples-run: examples
	@$(EXAMPLES_RUN) --insn
