# The tests of the nginx adapter; see build.mk.

# The nginx adapter's part that knows nothing of nginx.
NGINX_UNIT := $(patsubst %.c,$(BUILD)/%,$(wildcard tests/nginxunit/*.c))
TESTS += $(NGINX_UNIT)
$(BUILD)/libhakmem_nginx_testing.a: $(CORE_TESTING) $(NGINX:%.c=$(BUILD)/testing/%.o)
$(BUILD)/testing/tests/nginxunit/%.o: FLAGS += -Iadapters/nginx
$(eval $(call criterion,$(NGINX_UNIT),$(BUILD)/libhakmem_nginx_testing.a,$$(NGINX_LINK_$$(@F))))

# Objects whose slots are written; what each has that others have not.
NGINX_OBJECTS := $(BUILD)/tests/nginxunit/objects
NGINX_OBJECT_now := -Wl,-z,now,-z,relro
NGINX_OBJECT_lazy := -Wl,-z,lazy,-z,norelro
NGINX_OBJECT_data := -DWITH_DATA
NGINX_OBJECT_argz := -DWITH_ARGZ
NGINX_OBJECT_text := -DWITH_TEXT='"malloc"' -Wl,-z,notext
NGINX_OBJECT_textfree := -DWITH_TEXT='"free"' -Wl,-z,notext
NGINX_OBJECT_friend := -DWITH_FRIEND
NGINX_OBJECT_dl := -DWITH_DL
NGINX_OBJECT_runpath := -DWITH_DL -Wl,-rpath,'$$ORIGIN',--enable-new-dtags
NGINX_OBJECT_late := -DWITH_CONSTRUCTOR -Wl,-z,now,-z,relro
NGINX_OBJECT_callers := -DWITH_CALLERS
NGINX_OBJECT_allocator := -DWITH_ALLOCATOR
NGINX_OBJECT_own := -DWITH_OWN
NGINX_OBJECT_cxx := -DWITH_NEW -Wl,--no-as-needed -lstdc++
NGINX_OBJECT_COMPILE = $(CC) -std=gnu11 -D_GNU_SOURCE= -O1 -g -fPIC -fno-builtin \
    -Wall -Wextra $(if $(filter 1,$(WERROR)),-Werror) -shared
$(BUILD)/tests/nginxunit/slots $(BUILD)/tests/nginxunit/frees: $(patsubst %,$(NGINX_OBJECTS)/libngx%.so, \
    now lazy data argz text textfree friend dl runpath late callers allocator \
    own cxx)
$(BUILD)/tests/nginxunit/alloc: $(NGINX_OBJECTS)/libatfork.so
NGINX_LINK_alloc = -L$(NGINX_OBJECTS) -Wl,--no-as-needed,-latfork,--as-needed \
    -Wl,-rpath,'$$ORIGIN/objects'

$(NGINX_OBJECTS)/libngx%.so: tests/nginxunit/objects/object.c $(STAMP)
	$(SAY) LINK $@
	@mkdir -p $(@D)
	$(Q)$(NGINX_OBJECT_COMPILE) -o $@ $< $(NGINX_OBJECT_$*)

$(NGINX_OBJECTS)/libatfork.so: tests/nginxunit/objects/atfork.c $(STAMP)
	$(SAY) LINK $@
	@mkdir -p $(@D)
	$(Q)$(NGINX_OBJECT_COMPILE) -o $@ $<

# ---- in nginx -----------------------------------------------------------------

.PHONY: check-nginx check-nginx-valgrind check-nginx-profile test-nginx

# NGINX_TESTS: some, as unittest names them: NGINX_TESTS='test_serving'.
# HAKMEM_NGINX is another nginx than Debian's, NGINX_TESTED the module for it.
NGINX_TESTED ?= $(NGINX_MODULE)
check-nginx: nginx ## test: test the module in Debian's nginx
	@cd tests/nginx && HAKMEM_NGINX_MODULE='$(abspath $(NGINX_TESTED))' \
	    HAKMEM_NGINX='$(HAKMEM_NGINX)' \
	    HAKMEM_BUILD='$(abspath $(BUILD))' \
	    $(PYTHON) -m unittest $(or $(NGINX_TESTS),discover) \
	    $(if $(filter 1,$(V)),-v)

# A module of somebody else's, that uses the pools of hakmem_ngx.h.
NGINX_SAMPLE := $(BUILD)/nginx-sample/objs/ngx_http_hakmem_sample_module.so
$(NGINX_SAMPLE): $(NGINX_LIB) $(wildcard tests/nginx/sample/*) \
    include/hakmem_ngx.h adapters/nginx/build.sh
	$(SAY) NGINX $@
	$(Q)adapters/nginx/build.sh $(NGINX_SRC) $(BUILD)/nginx-sample \
	    $(NGINX_LIB) tests/nginx/sample
check-nginx: $(NGINX_SAMPLE)

# The tests preload them.
NGINX_DENY := $(BUILD)/tests/libdeny.so
$(NGINX_DENY): tests/nginx/libdeny.c $(STAMP)
	$(SAY) CC $@
	@mkdir -p $(@D)
	$(Q)$(CC) -shared -fPIC -D_GNU_SOURCE -Wall -Wextra -o $@ $<
NGINX_CRYPT := $(BUILD)/tests/nginx/unpatched/libcrypt.so.1
$(NGINX_CRYPT): tests/nginx/libcrypt.c $(STAMP)
	$(SAY) CC $@
	@mkdir -p $(@D) && echo 'XCRYPT_2.0 { crypt_r; };' >$(@D)/map
	$(Q)$(CC) -shared -fPIC -Wall -Wextra -Wl,-z,notext \
	    -Wl,-soname,$(@F),--version-script=$(@D)/map -o $@ $<
check-nginx: $(SHARED:%=$(BUILD)/%) $(OTHER_PAGES) $(NGINX_DENY) $(NGINX_CRYPT)

# The status page's shared zone by itself; nginx's headers come with a build.
NGINX_STRESS := $(BUILD)/tests/nginx/status_stress
$(NGINX_STRESS): tests/nginx/status_stress.c $(NGINX_MODULE) $(STAMP)
	$(SAY) CC $<
	@mkdir -p $(@D)
	$(Q)$(CC) -O2 -g -Wall -Wextra -Wno-unused-parameter \
	    $(if $(filter 1,$(WERROR)),-Werror) -Iadapters/nginx -Iinclude \
	    $(patsubst %,-I$(NGINX_DIR)/%,objs src/core src/event \
	        src/event/modules src/os/unix) $< -o $@
check-nginx: $(NGINX_STRESS)

check-nginx-valgrind: nginx ## test: the same module under valgrind, requests of every kind
	@$(MAKE) check-nginx NGINX_TESTS=valgrind_check

check-nginx-profile: nginx ## test: 20 profiles of a planted leak, 1 GB of allocations each
	@$(MAKE) check-nginx NGINX_TESTS=profile_check

# NGINX_SRC="DIRECTORY...": source trees of nginx, Angie or freenginx; minutes each.
.PHONY: check-nginxes
check-nginxes: $(NGINX_LIB) $(SHARED:%=$(BUILD)/%) ## test: the module in every nginx of NGINX_SRC="DIRECTORY..."
	@CC='$(CC)' MAKE='$(MAKE)' BUILD='$(BUILD)' NGINX_TESTS='$(NGINX_TESTS)' \
	    tests/nginx/nginxes.sh $(BUILD)/nginxes $(filter-out \
	    /usr/share/nginx/src,$(NGINX_SRC))

# An nginx with other people's modules compiled in, which takes minutes to
# build. NGINX_STATIC: how, as tests/nginx/static/build.sh names it, or several.
NGINX_STATIC ?= plain
NGINX_STATIC_DIR := $(BUILD)/nginx-static
NGINX_STATIC_SRC := $(NGINX_STATIC_DIR)/sources

.PHONY: check-nginx-static check-nginx-static-run
check-nginx-static: ## test: the module in an nginx with Lua, PAM, ModSecurity compiled in
	@.ci/install-deps nginx nginx-static
	@for kind in $(NGINX_STATIC); do \
	    $(MAKE) check-nginx-static-run NGINX_STATIC=$$kind || exit 1; done

check-nginx-static-run: $(NGINX_STATIC_DIR)/$(NGINX_STATIC)/module/tested
	@$(MAKE) check-nginx NGINX_TESTS='$(or $(NGINX_TESTS),static_check)' \
	    HAKMEM_NGINX='$(abspath $(<D)/../nginx)' \
	    NGINX_TESTED='$(<D)/objs/$(notdir $(NGINX_MODULE))'

$(NGINX_STATIC_SRC)/versions: tests/nginx/static/sources.sh
	$(SAY) FETCH $(@D)
	$(Q)$< $(@D)

$(NGINX_STATIC_DIR)/%/nginx: tests/nginx/static/build.sh \
    $(NGINX_STATIC_SRC)/versions
	$(SAY) NGINX $@
	$(Q)CC='$(CC)' NGINX_SRC='$(NGINX_SRC)' $< $(NGINX_STATIC_SRC) \
	    $(NGINX_STATIC_DIR) $*

.PRECIOUS: $(NGINX_STATIC_DIR)/%/nginx
$(NGINX_STATIC_DIR)/%/module/tested: $(NGINX_STATIC_DIR)/%/nginx $(NGINX_MODULE)
	$(SAY) NGINX $(@D)
	$(Q)NGX_CONF_FLAGS="$$(cat $(<D)/flags)" adapters/nginx/build.sh \
	    $(NGINX_STATIC_SRC)/nginx $(@D) $(NGINX_LIB) && touch $@

test-nginx:
	@if .ci/install-deps nginx; then $(MAKE) check-nginx; \
	else echo 'test: without nginx, its tests are left out'; fi
