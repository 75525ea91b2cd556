"""What SSH itself defines: keys, options, files for sshd; pure, standard library only, from Python 3.9 on."""
