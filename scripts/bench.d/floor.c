/* usage: floor NAMESPACES PROGRAM [ARGUMENT...]
 * The least that any container runtime has to do: makes the namespaces that the letters name (p pid, n network,
 * i ipc, u uts, m mount, c cgroup; - for none), executes the program in them and waits for it. */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static uint64_t flag(char letter) {
    switch (letter) {
    case 'p': return CLONE_NEWPID;
    case 'n': return CLONE_NEWNET;
    case 'i': return CLONE_NEWIPC;
    case 'u': return CLONE_NEWUTS;
    case 'm': return CLONE_NEWNS;
    case 'c': return CLONE_NEWCGROUP;
    default: return 0;
    }
}

static int failed(const char *what) {
    fprintf(stderr, "floor: %s: %s\n", what, strerror(errno));
    return 125;
}

int main(int count, char **arguments, char **environment) {
    if (count < 3) {
        fputs("usage: floor NAMESPACES PROGRAM [ARGUMENT...]\n", stderr);
        return 125;
    }
    struct clone_args clone = {.exit_signal = SIGCHLD};
    for (const char *letter = arguments[1]; *letter; letter++)
        clone.flags |= flag(*letter);
    long child = syscall(SYS_clone3, &clone, sizeof clone);
    if (child < 0)
        return failed("clone3");
    if (child == 0) {
        execve(arguments[2], arguments + 2, environment);
        _exit(failed(arguments[2]));
    }
    int status;
    if (waitpid((pid_t)child, &status, 0) < 0)
        return failed("waitpid");
    return WIFEXITED(status) ? WEXITSTATUS(status) : 125;
}
