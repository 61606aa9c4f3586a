/* /init of a stock Linux kernel: runs /program with the arguments that the kernel's command line has after "--", and powers the machine off. */
#include <stdio.h>
#include <stdlib.h>
#include <sys/reboot.h>
#include <sys/wait.h>
#include <unistd.h>

int main(int argc, char **argv) {
  (void)argc;
  pid_t child = fork();
  if (child == 0) {
    argv[0] = "/program";
    execv(argv[0], argv);
    _exit(127);
  }
  int status = 0;
  if (child < 0 || waitpid(child, &status, 0) != child || status != 0) printf("/program ended with status %d\n", status);
  fflush(stdout);
  reboot(RB_POWER_OFF);
  return 0;
}
