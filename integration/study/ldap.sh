#!/bin/bash
# The directory of people. What it knows lies in the volume of a data container.
set -e
cat >/tmp/slapd.conf <<E
include /etc/ldap/schema/core.schema
include /etc/ldap/schema/cosine.schema
include /etc/ldap/schema/inetorgperson.schema
modulepath /usr/lib/ldap
moduleload back_mdb
database mdb
maxsize 1048576
suffix dc=study
directory /var/lib/ldap/study
E
if [ ! -d /var/lib/ldap/study ]; then
  mkdir /var/lib/ldap/study
  slapadd -f /tmp/slapd.conf <<E
dn: dc=study
objectClass: domain
dc: study

dn: uid=ann,dc=study
objectClass: inetOrgPerson
uid: ann
cn: Ann
sn: of $ENVIRONMENT
userPassword: secret-of-$ENVIRONMENT
E
fi
exec slapd -f /tmp/slapd.conf -h ldap://:389 -d 0
