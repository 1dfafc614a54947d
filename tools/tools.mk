# The command hakmem: modules in Python, small helpers in C. $(BUILD)/hakmem is a
# launcher for the build, of what is here; without Python all of it is left out.
#
#   MODULEDIR  where its modules are installed

MODULEDIR ?= $(PREFIX)/share/hakmem
TOOL_MODULES := $(wildcard tools/hakmem/*.py)
HELPERS := $(BUILD)/hakmem-measure

.PHONY: command
ifeq ($(shell command -v $(PYTHON) 2>/dev/null),)

LEFT_OUT += $(call left_out,the command hakmem,no $(PYTHON),python3)
command: ; @$(call without,the command hakmem,no $(PYTHON),python3)

else

ALL += command
INSTALL += 755:$(BUILD)/hakmem.installed:$(PREFIX)/bin/hakmem \
    $(TOOL_MODULES:%=644:%:$(MODULEDIR)/) \
    644:core/profile/page.html:$(MODULEDIR)/ $(HELPERS:%=755:%:$(LIBDIR)/hakmem/)

command: $(BUILD)/hakmem $(BUILD)/hakmem.installed $(HELPERS) ## use: build the command hakmem
	@:

endif

.PHONY: check-command
CHECKS += check-command
check-command: all ## test: the command hakmem
	@HAKMEM_BUILD='$(abspath $(BUILD))' $(STOCK_PYTHON) -B tests/command/run.py \
	    $(if $(filter 1,$(V)),-v)

.PHONY: check-doctor
check-doctor: all ## test: planted leaks, caches and fragmentation, 20 times each
	@HAKMEM_BUILD='$(abspath $(BUILD))' HAKMEM_ROUNDS=20 $(STOCK_PYTHON) -B \
	    tests/command/run.py test_planted $(if $(filter 1,$(V)),-v)

# $(call demo_profile,ADAPTER,INTERPRETER): who holds the memory of its program, and
# where the page is.
demo_profile = @$(MAKE) command lib && mkdir -p $(BUILD)/demo && echo && \
    echo 'Who holds the memory of bench/demo/service.$(if $(filter lua,$1),lua,py)?' && \
    $(BUILD)/hakmem profile --$1 --rate 16K -o $(BUILD)/demo/$1.html -- $2 \
        bench/demo/service.$(if $(filter lua,$1),lua,py)

# $(call launcher,MODULES,LIBRARIES): anew when one of them is another.
launcher = $(Q)sed -e 's,@MODULES@,$1,' -e 's,@LIBRARIES@,$2,' \
    -e 's,@VERSION@,$(VERSION),' $< >$@ && chmod 755 $@
TOOLS_AT := $(BUILD)/hakmem.at
ifneq ($(file <$(TOOLS_AT)),$(MODULEDIR) $(LIBDIR))
$(TOOLS_AT): force
endif
$(TOOLS_AT):
	@mkdir -p $(@D)
	@echo '$(MODULEDIR) $(LIBDIR)' >$@

$(BUILD)/hakmem: tools/hakmem.in VERSION $(TOOLS_AT)
	$(SAY) GEN $@
	$(call launcher,$(abspath tools/hakmem),$(abspath $(BUILD)))
$(BUILD)/hakmem.installed: tools/hakmem.in VERSION $(TOOLS_AT)
	$(SAY) GEN $@
	$(call launcher,$(MODULEDIR),$(LIBDIR))

$(HELPERS): $(BUILD)/hakmem-%: tools/%.c $(STAMP)
	$(SAY) CC $@
	@mkdir -p $(@D)
	$(Q)$(CC) $(FLAGS) $(CFLAGS) $(LDFLAGS) -fno-lto -o $@ $<
