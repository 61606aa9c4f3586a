;; The switcher: what real PVM keeps in a per-CPU entry area, and the only part of the hypervisor that the CPU calls. `syscall` is
;; the target of every SYSCALL instruction of a PVM guest, `page_fault` of the page faults of its user mode when the switch
;; inject-direct is on. It serves these transitions itself ("direct switch"), and leaves for the hypervisor (EXIT_SYSCALL,
;; EXIT_EXCEPTION, nothing changed) in every other case.
;;
;; Upper-case names are constants of cpu-jit's layout.ts and of abi-v2/constants.ts, put in by scripts/build-switcher.ts:
;; S_* fields of the vCPU state block, V_* and P_* its control block, PVCS_* fields of the guest's PVCS page as revision v2
;; lays it out; rfc-v1 has the middle fields P_PVCS_SHIFT (8) bytes further on, the last two twice that, and PVCS_RSP between.
;; At a SYSCALL, S_RIP is at the instruction, S_EXIT_INSN_LEN is its length and S_ICOUNT does not count it yet.
(module
  (import "env" "memory" (memory 1 65536 shared))
  ;; The six status flags, kept lazily by the CPU, at their RFLAGS positions.
  (import "env" "getFlags" (func $getFlags (param $cpu i32) (result i32)))
  (import "env" "setFlags" (func $setFlags (param $cpu i32) (param $flags i32)))
  ;; Forget the translations of a TLB array: 2 * slot for smod, + 1 for umod.
  (import "env" "flushArray" (func $flushArray (param $cpu i32) (param $array i32)))

  ;; SYSCALL as a CPU by itself does it; with a deprivileged kernel that exchanges root and TLB array as well.
  (import "env" "syscall_native" (func $syscall_native (param $cpu i32) (result i32)))

  (func (export "syscall") (param $cpu i32) (result i32)
    ;; An unmodified kernel: its user's SYSCALL goes straight to LSTAR. (In non-PVM mode there is no one to ask.)
    (if (i32.load offset=V_NATIVE (local.get $cpu))
      (then
        (if (i32.and (i32.ne (i32.load offset=V_DEPRIVILEGED (local.get $cpu)) (i32.const 0)) (i32.eqz (i32.load offset=P_DIRECT (local.get $cpu))))
          (then (return (i32.const EXIT_SYSCALL))))
        (return_call $syscall_native (local.get $cpu))))
    ;; P_DIRECT is 0 while an event is pending, a shadow root is missing, or direct switching is turned off.
    (if (i32.eqz (i32.load offset=P_DIRECT (local.get $cpu)))
      (then (return (i32.const EXIT_SYSCALL))))
    (if (i32.load offset=P_SMOD (local.get $cpu))
      (then (return (call $eretu (local.get $cpu)))))
    (call $user_syscall (local.get $cpu)))

  ;; What umod must be like for the switcher to leave it: flat 64-bit segments and no single-step. Otherwise the hypervisor does it.
  (func $is_plain_umod (param $cpu i32) (result i32)
    (i32.and
      (i32.and
        (i32.eq (i32.load offset=CS_SELECTOR (local.get $cpu)) (i32.const USER_CS))
        (i32.eq (i32.load offset=SS_SELECTOR (local.get $cpu)) (i32.const USER_DS)))
      (i32.eqz (i32.and (i32.load offset=S_RFLAGS (local.get $cpu)) (i32.const RFLAGS_TF)))))

  ;; With an instruction breakpoint armed, RF: an instruction that faulted passes the one that it has passed.
  (func $resume_flag (param $cpu i32) (result i32)
    (select (i32.const RFLAGS_RF) (i32.const 0) (i32.and (i32.load offset=S_WATCH (local.get $cpu)) (i32.const WATCH_CODE))))

  (func $flags (param $cpu i32) (result i32)
    (i32.or (call $getFlags (local.get $cpu)) (i32.load offset=S_RFLAGS (local.get $cpu))))

  ;; umod SYSCALL: save the user's state in the PVCS, continue at LSTAR in smod. SYSCALL itself puts RIP into RCX and RFLAGS into
  ;; R11 before anything is saved.
  (func $user_syscall (param $cpu i32) (result i32)
    (local $flags i32) (local $next i64)
    (if (i32.eqz (call $is_plain_umod (local.get $cpu)))
      (then (return (i32.const EXIT_SYSCALL))))
    (local.set $flags (call $flags (local.get $cpu)))
    (local.set $next (i64.add (i64.load offset=S_RIP (local.get $cpu)) (i64.load32_u offset=S_EXIT_INSN_LEN (local.get $cpu))))
    (call $enter_smod (local.get $cpu) (local.get $flags) (local.get $next) (local.get $next) (i64.extend_i32_u (local.get $flags))
      (i64.load offset=S_LSTAR (local.get $cpu)))
    (i64.store offset=P_DIRECT_SYSCALLS (local.get $cpu) (i64.add (i64.load offset=P_DIRECT_SYSCALLS (local.get $cpu)) (i64.const 1)))
    (return_call $retire (local.get $cpu)))

  ;; A #PF that the CPU found the guest's own tables to mean (S_EXC*): in umod, save the user's state and the event in the PVCS and
  ;; continue at EVENT_ENTRY. With prefault, the ERETU that follows is left to the hypervisor, which then fills in the page.
  (func (export "page_fault") (param $cpu i32) (result i32)
    (local $pvcs i32)
    (if (i32.or (i32.load offset=P_SMOD (local.get $cpu)) (i32.eqz (i32.load offset=P_DIRECT (local.get $cpu))))
      (then (return (i32.const EXIT_EXCEPTION))))
    (if (i32.eqz (call $is_plain_umod (local.get $cpu)))
      (then (return (i32.const EXIT_EXCEPTION))))
    (local.set $pvcs (i32.load offset=P_PVCS (local.get $cpu)))
    (call $enter_smod (local.get $cpu)
      (i32.or (call $flags (local.get $cpu))
        (call $resume_flag (local.get $cpu)))
      (i64.load offset=S_RIP (local.get $cpu))
      (i64.load offset=RCX (local.get $cpu)) (i64.load offset=R11 (local.get $cpu)) (i64.load offset=P_EVENT_ENTRY (local.get $cpu)))
    (i64.store offset=S_CR2 (local.get $cpu) (i64.load offset=S_EXC_ADDR (local.get $cpu)))
    (i64.store offset=PVCS_CR2 (i32.add (local.get $pvcs) (i32.load offset=P_PVCS_SHIFT (local.get $cpu))) (i64.load offset=S_EXC_ADDR (local.get $cpu)))
    (if (i32.load offset=P_PVCS_SHIFT (local.get $cpu))
      (then
        (i32.store offset=RFC_EVENT_ERRCODE (local.get $pvcs) (i32.load offset=S_EXC_ERROR (local.get $cpu)))
        (i32.store offset=RFC_EVENT_VECTOR (local.get $pvcs) (i32.const VECTOR_PF)))
      (else
        (i32.store16 offset=PVCS_EVENT_ERRCODE (local.get $pvcs) (i32.load offset=S_EXC_ERROR (local.get $cpu)))
        (i32.store16 offset=PVCS_EVENT_VECTOR (local.get $pvcs) (i32.const VECTOR_PF))))
    (i32.store offset=S_EXC (local.get $cpu) (i32.const 0))
    (if (i32.load offset=P_PREFAULT (local.get $cpu))
      (then
        (i64.store offset=P_PREFAULT_VA (local.get $cpu) (i64.load offset=S_EXC_ADDR (local.get $cpu)))
        (i32.store offset=P_PREFAULT (local.get $cpu)
          (i32.or (i32.const PREFAULT_ON) (i32.add (i32.const 1) (i32.and (i32.load offset=S_EXIT_ACCESS (local.get $cpu)) (i32.const 3)))))
        (i32.store offset=P_DIRECT (local.get $cpu) (i32.const 0))))
    (i64.store offset=P_DIRECT_FAULTS (local.get $cpu) (i64.add (i64.load offset=P_DIRECT_FAULTS (local.get $cpu)) (i64.const 1)))
    (i32.const NEXT_CHECK))

  ;; From umod to smod: what is saved of the user in the PVCS, what smod finds, its address space.
  (func $enter_smod (param $cpu i32) (param $flags i32) (param $rip i64) (param $rcx i64) (param $r11 i64) (param $entry i64)
    (local $pvcs i32) (local $middle i32) (local $last i32)
    (local.set $pvcs (i32.load offset=P_PVCS (local.get $cpu)))
    (local.set $middle (i32.add (local.get $pvcs) (i32.load offset=P_PVCS_SHIFT (local.get $cpu))))
    (local.set $last (i32.add (local.get $middle) (i32.load offset=P_PVCS_SHIFT (local.get $cpu))))
    (i32.store offset=PVCS_USER_CS (local.get $pvcs) (i32.const USER_CS_SS))
    (i64.store offset=PVCS_USER_GSBASE (local.get $middle) (i64.load offset=GS_BASE (local.get $cpu)))
    (i32.store offset=PVCS_EFLAGS (local.get $middle) (local.get $flags))
    (i32.store offset=PVCS_PKRU (local.get $middle) (i32.load offset=S_PKRU (local.get $cpu)))
    (i64.store offset=PVCS_RIP (local.get $middle) (local.get $rip))
    (i64.store offset=PVCS_RCX (local.get $last) (local.get $rcx))
    (i64.store offset=PVCS_R11 (local.get $last) (local.get $r11))

    (i64.store offset=GS_BASE (local.get $cpu) (i64.load offset=S_KERNEL_GS_BASE (local.get $cpu)))
    ;; All status flags 0: an explicit result of 1 is neither zero nor negative nor of even parity.
    (i32.store offset=S_CC_KIND (local.get $cpu) (i32.const FLAGS_EXPLICIT))
    (i64.store offset=S_CC_RES (local.get $cpu) (i64.const 1))
    (i64.store offset=S_CC_SRC (local.get $cpu) (i64.const 0))
    (i32.store offset=S_RFLAGS (local.get $cpu) (i32.const RFLAGS_SMOD))
    (i64.store offset=R11 (local.get $cpu) (i64.const RFLAGS_SMOD))
    (i64.store offset=RCX (local.get $cpu) (local.get $entry))
    (i64.store offset=S_RIP (local.get $cpu) (local.get $entry))

    (if (i32.load offset=P_PVCS_SHIFT (local.get $cpu))
      (then
        (i64.store offset=PVCS_RSP (local.get $pvcs) (i64.load offset=RSP (local.get $cpu)))
        (i64.store offset=RSP (local.get $cpu) (i64.load offset=P_SUPERVISOR_RSP (local.get $cpu)))
        (call $exchange_cr3 (local.get $cpu))))
    (i32.store offset=P_SMOD (local.get $cpu) (i32.const 1))
    (i32.store offset=V_ROOT (local.get $cpu) (i32.load offset=P_KERNEL_ROOT (local.get $cpu)))
    (i32.store offset=S_TLB (local.get $cpu) (i32.load offset=P_KERNEL_TLB (local.get $cpu)))
    (i64.store offset=STACK_ROOM (i32.const 0) (i64.const 0))
    (if (i32.load offset=P_FLUSH_ON_SWITCH (local.get $cpu))
      (then (call $flushArray (local.get $cpu) (i32.shl (i32.load offset=V_SLOT (local.get $cpu)) (i32.const 1)))))
    (i32.store offset=S_CTX (local.get $cpu) (i32.load offset=T_CTX (call $contexts (local.get $cpu)))))

  ;; smod SYSCALL at RETU_RIP: restore the user's state from the PVCS. Any other smod SYSCALL is a hypercall.
  (func $eretu (param $cpu i32) (result i32)
    (local $pvcs i32) (local $middle i32) (local $last i32) (local $flags i32) (local $unused_bits i64)
    (if (i64.ne (i64.load offset=S_RIP (local.get $cpu)) (i64.load offset=P_RETU_RIP (local.get $cpu)))
      (then (return (i32.const EXIT_SYSCALL))))
    (local.set $pvcs (i32.load offset=P_PVCS (local.get $cpu)))
    (local.set $middle (i32.add (local.get $pvcs) (i32.load offset=P_PVCS_SHIFT (local.get $cpu))))
    (local.set $last (i32.add (local.get $middle) (i32.load offset=P_PVCS_SHIFT (local.get $cpu))))
    (local.set $flags (i32.load offset=PVCS_EFLAGS (local.get $middle)))
    ;; A waiting interrupt, single-step, RF that is to pass a breakpoint, or segments other than the flat 64-bit ones: the hypervisor does it.
    (if (i32.and (i32.load offset=PVCS_EVENT_FLAGS (local.get $pvcs)) (i32.const EVENT_FLAG_IP))
      (then (return (i32.const EXIT_SYSCALL))))
    (if (i32.and (local.get $flags) (i32.or (i32.const RFLAGS_TF) (call $resume_flag (local.get $cpu))))
      (then (return (i32.const EXIT_SYSCALL))))
    (if (i32.ne (i32.or (i32.load offset=PVCS_USER_CS (local.get $pvcs)) (i32.const 0x00030003)) (i32.const USER_CS_SS))
      (then (return (i32.const EXIT_SYSCALL))))

    ;; The bits of an address above its 48 (57 with five-level tables) are a copy of the highest one.
    (local.set $unused_bits (select (i64.const 7) (i64.const 16) (i32.eq (i32.load offset=V_LEVELS (local.get $cpu)) (i32.const 5))))
    (i64.store offset=GS_BASE (local.get $cpu)
      (i64.shr_s (i64.shl (i64.load offset=PVCS_USER_GSBASE (local.get $middle)) (local.get $unused_bits)) (local.get $unused_bits)))
    (i32.store offset=S_PKRU (local.get $cpu) (i32.load offset=PVCS_PKRU (local.get $middle)))
    (call $setFlags (local.get $cpu) (i32.and (local.get $flags) (i32.const RFLAGS_STATUS)))
    (i32.store offset=S_RFLAGS (local.get $cpu)
      (i32.or (i32.and (i32.and (local.get $flags) (i32.load offset=P_RFLAGS_ALLOWED (local.get $cpu))) (i32.const RFLAGS_NOT_STATUS)) (i32.const RFLAGS_SMOD)))
    (i64.store offset=S_RIP (local.get $cpu) (i64.load offset=PVCS_RIP (local.get $middle)))
    (i64.store offset=RCX (local.get $cpu) (i64.load offset=PVCS_RCX (local.get $last)))
    (i64.store offset=R11 (local.get $cpu) (i64.load offset=PVCS_R11 (local.get $last)))

    (if (i32.load offset=P_PVCS_SHIFT (local.get $cpu))
      (then
        (i64.store offset=P_SUPERVISOR_RSP (local.get $cpu) (i64.load offset=RSP (local.get $cpu)))
        (i64.store offset=RSP (local.get $cpu) (i64.load offset=PVCS_RSP (local.get $pvcs)))
        (call $exchange_cr3 (local.get $cpu))))
    (i32.store offset=P_SMOD (local.get $cpu) (i32.const 0))
    (i32.store offset=V_ROOT (local.get $cpu) (i32.load offset=P_USER_ROOT (local.get $cpu)))
    (i32.store offset=S_TLB (local.get $cpu) (i32.load offset=P_USER_TLB (local.get $cpu)))
    (i64.store offset=STACK_ROOM (i32.const 0) (i64.const 0))
    (if (i32.load offset=P_FLUSH_ON_SWITCH (local.get $cpu))
      (then (call $flushArray (local.get $cpu) (i32.add (i32.shl (i32.load offset=V_SLOT (local.get $cpu)) (i32.const 1)) (i32.const 1)))))
    (i32.store offset=S_CTX (local.get $cpu) (i32.load offset=T_CTX_USER (call $contexts (local.get $cpu))))
    (i64.store offset=P_DIRECT_ERETUS (local.get $cpu) (i64.add (i64.load offset=P_DIRECT_ERETUS (local.get $cpu)) (i64.const 1)))
    (return_call $retire (local.get $cpu)))

  ;; rfc-v1: CR3 is always the table of the current mode, SWITCH_CR3 that of the other. Nothing is flushed.
  (func $exchange_cr3 (param $cpu i32)
    (local $other i64)
    (local.set $other (i64.load offset=P_SWITCH_CR3 (local.get $cpu)))
    (i64.store offset=P_SWITCH_CR3 (local.get $cpu) (i64.load offset=S_CR3 (local.get $cpu)))
    (i64.store offset=S_CR3 (local.get $cpu) (local.get $other)))

  ;; Where the context numbers of the current slot's two TLB arrays are, less T_CTX. Read from the table, never from a
  ;; copy: flushes replace them.
  (func $contexts (param $cpu i32) (result i32)
    (i32.add (local.get $cpu) (i32.shl (i32.load offset=V_SLOT (local.get $cpu)) (i32.const 3))))

  (func $retire (param $cpu i32) (result i32)
    (i64.store offset=S_ICOUNT (local.get $cpu) (i64.add (i64.load offset=S_ICOUNT (local.get $cpu)) (i64.const 1)))
    (i32.const NEXT_CHECK)))
