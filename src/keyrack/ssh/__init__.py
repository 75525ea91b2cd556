"""What SSH itself defines: wire format, public keys, options, files for sshd; pure, standard library only, Python 3.9."""
